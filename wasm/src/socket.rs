//! One WebSocket: binary frames out and in, its end as an event, and how much still waits inside it.
//!
//! It promises that events carry the generation of their socket, and that a dropped socket is silent: its handlers are
//! detached before it is closed, so nothing late reaches its successor. A text frame ends the socket.
//!
//! It leaves to core: when to connect, what a frame is, how much may wait. The receive side has no back-pressure in
//! browsers; credit in the protocol bounds it.

use std::rc::Rc;

use wasm_bindgen::prelude::*;
use web_sys::{BinaryType, CloseEvent, MessageEvent, WebSocket};

use crate::inbox::Inbox;
use crate::store::Fault;
use crate::witness::Held;

/// Sent as the close code when the other side sends text: RFC 6455, section 7.4.1, "unsupported data".
const CODE_UNSUPPORTED: u16 = 1003;

/// The normal end of a socket: RFC 6455, section 7.4.1.
const CODE_NORMAL: u16 = 1000;

/// What a socket has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SocketEvent {
    /// It is open; frames can be sent.
    Opened,
    /// A binary frame arrived.
    Frame(Vec<u8>),
    /// It is closed, or never opened. The last event of a socket.
    Closed {
        /// The close code; 1006 when the connection broke or could not be made.
        code: u16,
        /// The server's reason; usually empty.
        reason: String,
    },
}

/// Where a socket's events go, with the generation it was opened under.
pub(crate) type SocketSink = Rc<dyn Fn(u64, SocketEvent)>;

/// The browser does not open such a socket: the address is malformed, or the page may not use it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the socket cannot be opened: {0}")]
pub(crate) struct OpenRefused(pub(crate) Fault);

/// A WebSocket. Dropping it detaches and closes it.
pub(crate) struct Socket {
    raw: WebSocket,
    _inbox: Inbox,
    _held: Held,
    _on_open: Closure<dyn FnMut()>,
    _on_message: Closure<dyn FnMut(MessageEvent)>,
    _on_close: Closure<dyn FnMut(CloseEvent)>,
}

impl Socket {
    /// Starts to connect. Events come later, never from within this call.
    ///
    /// # Errors
    /// [`OpenRefused`]: trying the same address again cannot help.
    pub(crate) fn open(url: &str, generation: u64, sink: SocketSink) -> Result<Self, OpenRefused> {
        let raw = WebSocket::new(url).map_err(|error| OpenRefused(fault(&error)))?;
        raw.set_binary_type(BinaryType::Arraybuffer);
        let (inbox, arrived) = Inbox::new(generation, sink).map_err(|error| OpenRefused(fault(&error)))?;
        let on_open = Closure::new({
            let arrived = arrived.clone();
            move || arrived(SocketEvent::Opened)
        });
        let on_message = Closure::new({
            let (arrived, raw) = (arrived.clone(), raw.clone());
            move |event: MessageEvent| match event.data().dyn_into::<js_sys::ArrayBuffer>() {
                Ok(bytes) => {
                    let frame = js_sys::Uint8Array::new(&bytes).to_vec();
                    arrived(SocketEvent::Frame(frame));
                }
                // The close event follows.
                Err(_text) => close(&raw, CODE_UNSUPPORTED),
            }
        });
        let on_close = Closure::new(move |event: CloseEvent| {
            let (code, reason) = (event.code(), event.reason());
            arrived(SocketEvent::Closed { code, reason });
        });
        raw.set_onopen(Some(on_open.as_ref().unchecked_ref()));
        raw.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        raw.set_onclose(Some(on_close.as_ref().unchecked_ref()));
        Ok(Socket {
            _inbox: inbox,
            _held: Held::of(&raw, "close"),
            raw,
            _on_open: on_open,
            _on_message: on_message,
            _on_close: on_close,
        })
    }

    /// Hands a frame to the browser. On a socket that is closing the frame is gone; the close event tells so.
    pub(crate) fn send(&self, frame: &[u8]) {
        // Throws only before the socket is open, and core sends nothing before `Opened`.
        let _ = self.raw.send_with_u8_array(frame);
    }

    /// Bytes that were sent here but have not left the browser.
    pub(crate) fn buffered_bytes(&self) -> u32 {
        self.raw.buffered_amount()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.raw.set_onopen(None);
        self.raw.set_onmessage(None);
        self.raw.set_onclose(None);
        close(&self.raw, CODE_NORMAL);
    }
}

fn close(raw: &WebSocket, code: u16) {
    // Fails only for codes that a page may not send. 1003 is one of them in some browsers: then without a code.
    if raw.close_with_code(code).is_err() {
        let _ = raw.close();
    }
}

fn fault(error: &JsValue) -> Fault {
    match error.dyn_ref::<js_sys::Error>() {
        Some(error) => Fault::new(&String::from(error.name()), String::from(error.message())),
        None => Fault::new("Exception", format!("{error:?}")),
    }
}

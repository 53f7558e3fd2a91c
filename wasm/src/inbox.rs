//! What a socket has brought: large frames are taken in one a task, and answers go before them.
//!
//! A browser hands frames over as fast as they come. Taken in at once, an answer would wait for all the entries in front
//! of it, up to the credit that was given for them. So a large frame waits here for a task that stands behind what has
//! arrived meanwhile, and what may overtake it does.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use driftlog_core::protocol::Frame;
use wasm_bindgen::prelude::*;
use web_sys::{MessageChannel, MessagePort};

use crate::socket::{SocketEvent, SocketSink};
use crate::witness::Held;

/// A frame of so many bytes is taken in by a task of its own: smaller ones cost less than they would wait.
const LARGE_BYTES: usize = 4 * 1024;

/// The events of one socket. Dropping it forgets those that wait.
pub(crate) struct Inbox {
    waiting: Rc<Waiting>,
    port: MessagePort,
    _held: Held,
    _on_turn: Closure<dyn FnMut()>,
}

struct Waiting {
    generation: u64,
    sink: SocketSink,
    events: RefCell<VecDeque<SocketEvent>>,
    /// What is said here comes back in a task of its own. `setTimeout` waits for 4 ms when it is called again and again.
    turns: MessagePort,
}

impl Inbox {
    /// An inbox for the events of a socket, and what it is told of each with.
    ///
    /// # Errors
    /// What the browser says that has no message channel.
    pub(crate) fn new(
        generation: u64,
        sink: SocketSink,
    ) -> Result<(Self, impl Fn(SocketEvent) + Clone + 'static), JsValue> {
        let channel = MessageChannel::new()?;
        let port = channel.port1();
        let waiting = Rc::new(Waiting { generation, sink, events: RefCell::default(), turns: channel.port2() });
        let on_turn = Closure::new({
            let waiting = Rc::clone(&waiting);
            move || waiting.turn()
        });
        port.set_onmessage(Some(on_turn.as_ref().unchecked_ref()));
        let arrived = {
            let waiting = Rc::clone(&waiting);
            move |event| waiting.arrived(event)
        };
        Ok((Inbox { waiting, _held: Held::of(&port, "close"), port, _on_turn: on_turn }, arrived))
    }
}

impl Waiting {
    fn arrived(&self, event: SocketEvent) {
        let mut events = self.events.borrow_mut();
        let overtakes = matches!(&event, SocketEvent::Frame(bytes) if Frame::overtakes(bytes));
        let gives_way = |event: &SocketEvent| matches!(event, SocketEvent::Frame(bytes) if Frame::gives_way(bytes));
        let passed = if overtakes { events.iter().rev().take_while(|event| gives_way(event)).count() } else { 0 };
        let at = events.len() - passed;
        let is_large = matches!(&event, SocketEvent::Frame(bytes) if bytes.len() >= LARGE_BYTES);
        if at == 0 && !is_large {
            drop(events);
            return (self.sink)(self.generation, event);
        }
        events.insert(at, event);
        if events.len() == 1 {
            self.ask_for_turn();
        }
    }

    fn turn(&self) {
        let Some(event) = self.events.borrow_mut().pop_front() else { return };
        if !self.events.borrow().is_empty() {
            self.ask_for_turn();
        }
        (self.sink)(self.generation, event);
    }

    fn ask_for_turn(&self) {
        // Fails only for a value that cannot be copied.
        let _ = self.turns.post_message(&JsValue::NULL);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.waiting.events.borrow_mut().clear();
        self.port.set_onmessage(None);
        self.port.close();
    }
}

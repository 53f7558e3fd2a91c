//! What happens to the page: hidden, left, brought back, frozen, online. Each is an event; core and the tabs decide what
//! it means. Windows have all of them, workers only the network's, Node none.

use wasm_bindgen::prelude::*;
use web_sys::{Event, EventTarget, PageTransitionEvent};

use crate::witness::Held;

/// A change of the page's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageEvent {
    /// Not visible any more. On phones the last event that is sure to come: flush now.
    Hidden,
    /// Visible again.
    Visible,
    /// Left, perhaps into the back/forward cache, perhaps for good: let go of locks and sockets.
    Left,
    /// Back from the back/forward cache: start again.
    Restored,
    /// About to stand still: tasks and timers stop after this event.
    Frozen,
    /// Going on after standing still.
    Resumed,
    /// Some network interface exists again. Only a reason to try at once.
    Online,
    /// No network interface. Believable.
    Offline,
}

/// The listeners on the page. Dropping it removes them.
pub(crate) struct Page {
    _listeners: Vec<Listener>,
}

impl Page {
    /// Listens to everything that this environment has.
    pub(crate) fn watch(sink: impl Fn(PageEvent) + Clone + 'static) -> Self {
        let mut listeners = Vec::new();
        if let Some(global) = event_target(&js_sys::global()) {
            let on = |kind, event| Listener::fixed(&global, kind, event, sink.clone());
            listeners.push(on("online", PageEvent::Online));
            listeners.push(on("offline", PageEvent::Offline));
            listeners.push(on("pagehide", PageEvent::Left));
            listeners.push(Listener::new(&global, "pageshow", {
                let sink = sink.clone();
                move |event: Event| {
                    let event: &PageTransitionEvent = event.unchecked_ref();
                    // The first `pageshow` of a page is its load.
                    if event.persisted() {
                        sink(PageEvent::Restored);
                    }
                }
            }));
        }
        if let Some(document) = document() {
            let on = |kind, event| Listener::fixed(&document, kind, event, sink.clone());
            listeners.push(on("freeze", PageEvent::Frozen));
            listeners.push(on("resume", PageEvent::Resumed));
            listeners.push(Listener::new(&document, "visibilitychange", {
                let sink = sink.clone();
                move |_| {
                    sink(if is_hidden() { PageEvent::Hidden } else { PageEvent::Visible });
                }
            }));
        }
        Page { _listeners: listeners }
    }
}

/// Whether the page is hidden now. What has no page is not hidden.
pub(crate) fn is_hidden() -> bool {
    document().is_some_and(|document| {
        let hidden = js_sys::Reflect::get(&document, &"hidden".into());
        hidden.is_ok_and(|hidden| hidden.is_truthy())
    })
}

fn document() -> Option<EventTarget> {
    let document = js_sys::Reflect::get(&js_sys::global(), &"document".into()).ok()?;
    event_target(&document)
}

/// `value` as an event target, if it is one: windows and workers are, Node's global object is not.
fn event_target(value: &JsValue) -> Option<EventTarget> {
    let listen = "addEventListener".into();
    let is_target = value.is_object() && js_sys::Reflect::get(value, &listen).ok()?.is_function();
    is_target.then(|| value.clone().unchecked_into())
}

struct Listener {
    target: EventTarget,
    kind: &'static str,
    closure: Closure<dyn FnMut(Event)>,
    _held: Held,
}

impl Listener {
    fn new(target: &EventTarget, kind: &'static str, heard: impl FnMut(Event) + 'static) -> Self {
        let closure = Closure::<dyn FnMut(Event)>::new(heard);
        // Adding a listener of a known kind does not fail.
        let _ = target.add_event_listener_with_callback(kind, closure.as_ref().unchecked_ref());
        let held = Held::with(target, "removeEventListener", &[kind.into(), closure.as_ref().clone()]);
        Listener { target: target.clone(), kind, closure, _held: held }
    }

    fn fixed(target: &EventTarget, kind: &'static str, event: PageEvent, sink: impl Fn(PageEvent) + 'static) -> Self {
        Listener::new(target, kind, move |_| sink(event))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let handler = self.closure.as_ref().unchecked_ref();
        let _ = self.target.remove_event_listener_with_callback(self.kind, handler);
    }
}

//! The tabs of one client: who leads, and hints between them.
//!
//! One tab holds the lock `driftlog-leader:NAME` and owns the socket. The lock elects, it does not protect: a tab that
//! was frozen while it led does not know that it was replaced. So core raises an epoch in the store when a tab is
//! elected, and checks it inside the leader's transactions.
//!
//! ```text
//!  withdrawn ──campaign──► waiting ──lock granted──► leading
//!      ▲                    │   ▲                       │
//!      └──────withdraw──────┴───┼────── withdraw ───────┤
//!                               └── stolen, lease lost ─┘  (Deposed)
//! ```
//!
//! A leader that stands still keeps its lock. So a visible follower asks now and then whether the leader is there
//! (answers to messages are not throttled in hidden tabs) and steals the lock when two questions in a row found no
//! answer.
//!
//! Where there are no Web Locks (a page without a secure context) the row is a lease, and [`Mode::Lease`] says so.
//! Hints may be lost: they save time, the rows are the truth.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{AbortController, BroadcastChannel, MessageEvent};

use crate::clock;
use crate::lease::{self, Claim, LEASE_RENEWAL_MS, TabId};
use crate::page;
use crate::store::{LocalStore, StoreError};
use crate::timer::{Timer, sleep};
use crate::witness::Held;

/// How often a visible follower asks for the leader.
const PROBE_MS: u64 = 5_000;

/// So many questions without an answer, and the lock is stolen.
const PROBES_UNANSWERED_MAX: u32 = 2;

/// The pause before the lock is asked for again when the browser refused the question.
const ASK_RETRY_MS: u32 = 1_000;

/// How the tabs of this client elect their leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// By Web Locks.
    Locks,
    /// By a lease in the store: slower, and dependent on the device's clock.
    Lease,
    /// There is no other tab: the store lives in this one.
    Alone,
}

/// What the tabs have to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TabEvent {
    /// This tab leads.
    Elected,
    /// This tab does not lead any more; it waits for its next turn.
    Deposed,
    /// Another tab's hint, as it was given to [`Tabs::hint`].
    Hint(Vec<u8>),
}

/// This tab among the others. Dropping it withdraws.
pub(crate) struct Tabs {
    shared: Rc<Shared>,
    _on_message: Option<Closure<dyn FnMut(MessageEvent)>>,
    _timer: Rc<Timer>,
    _held: Option<Held>,
}

struct Shared {
    lock_name: String,
    me: TabId,
    mode: Mode,
    store: LocalStore,
    sink: Box<dyn Fn(TabEvent)>,
    channel: Option<BroadcastChannel>,
    timer: RefCell<Weak<Timer>>,
    stand: RefCell<Stand>,
    /// Raised by every campaign and withdrawal: what an earlier one started finds itself outdated.
    campaign: Cell<u64>,
    request: RefCell<Option<LockRequest>>,
    probes_unanswered: Cell<u32>,
}

enum Stand {
    Withdrawn,
    Waiting,
    Leading,
}

/// A byte in front of each message between tabs.
mod kind {
    pub(super) const HINT: u8 = 0;
    pub(super) const PROBE: u8 = 1;
    pub(super) const PRESENT: u8 = 2;
}

impl Tabs {
    /// Joins the tabs of the client `name`; [`Tabs::campaign`] starts the election.
    pub(crate) fn join(name: &str, me: TabId, store: LocalStore, sink: impl Fn(TabEvent) + 'static) -> Self {
        let mode = match store {
            LocalStore::Memory(_) => Mode::Alone,
            LocalStore::IndexedDb(_) if locks().is_some() => Mode::Locks,
            LocalStore::IndexedDb(_) => Mode::Lease,
        };
        let channel = match mode {
            Mode::Alone => None,
            Mode::Locks | Mode::Lease => open_channel(&format!("driftlog:{name}")),
        };
        let shared = Rc::new(Shared {
            lock_name: format!("driftlog-leader:{name}"),
            me,
            mode,
            store,
            sink: Box::new(sink),
            channel,
            timer: RefCell::default(),
            stand: RefCell::new(Stand::Withdrawn),
            campaign: Cell::new(0),
            request: RefCell::default(),
            probes_unanswered: Cell::new(0),
        });
        let timer = Rc::new(Timer::new({
            let shared = Rc::downgrade(&shared);
            move || {
                if let Some(shared) = shared.upgrade() {
                    shared.tick();
                }
            }
        }));
        shared.timer.replace(Rc::downgrade(&timer));
        let on_message = shared.channel.as_ref().map(|channel| {
            let shared = Rc::downgrade(&shared);
            let closure = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
                if let Some(shared) = shared.upgrade() {
                    shared.hear(&event.data());
                }
            });
            channel.set_onmessage(Some(closure.as_ref().unchecked_ref()));
            closure
        });
        let held = shared.channel.as_ref().map(|channel| Held::of(channel, "close"));
        Tabs { shared, _on_message: on_message, _timer: timer, _held: held }
    }

    /// How the leader is elected here.
    pub(crate) fn mode(&self) -> Mode {
        self.shared.mode
    }

    /// Stands for election until [`Tabs::withdraw`]; does nothing while it already does.
    pub(crate) fn campaign(&self) {
        if matches!(*self.shared.stand.borrow(), Stand::Withdrawn) {
            self.shared.stand_for_election();
        }
    }

    /// Gives up the leadership, or the wait for it. No event follows.
    pub(crate) fn withdraw(&self) {
        self.shared.withdraw();
    }

    /// Tells the other tabs something that saves them time. They may not hear it.
    pub(crate) fn hint(&self, hint: &[u8]) {
        self.shared.say(kind::HINT, hint);
    }
}

impl Drop for Tabs {
    fn drop(&mut self) {
        self.shared.withdraw();
        if let Some(channel) = &self.shared.channel {
            channel.set_onmessage(None);
            channel.close();
        }
    }
}

impl Shared {
    fn stand_for_election(self: &Rc<Self>) {
        self.stand.replace(Stand::Waiting);
        let campaign = self.next_campaign();
        self.probes_unanswered.set(0);
        let shared = Rc::clone(self);
        match self.mode {
            Mode::Locks => {
                self.ring_in(PROBE_MS);
                spawn_local(hold_lock(shared, campaign, Asking::InTurn));
            }
            Mode::Lease => self.tick(),
            // In a task of its own, as the others: events never come from within a call.
            Mode::Alone => spawn_local(async move { lead(&shared, campaign) }),
        }
    }

    fn withdraw(&self) {
        let was_leading = self.is_leading();
        self.stand.replace(Stand::Withdrawn);
        self.next_campaign();
        self.ring_never();
        if was_leading && self.mode == Mode::Lease {
            let (store, me) = (self.store.clone(), self.me);
            spawn_local(async move { lease::release(&store, me).await });
        }
    }

    /// Outdates what was started before, and lets go of the lock or of the wait for it.
    fn next_campaign(&self) -> u64 {
        let campaign = self.campaign.get() + 1;
        self.campaign.set(campaign);
        if let Some(request) = self.request.take() {
            request.let_go();
        }
        campaign
    }

    fn tick(self: &Rc<Self>) {
        match (self.mode, &*self.stand.borrow()) {
            (Mode::Alone, _) | (_, Stand::Withdrawn) | (Mode::Locks, Stand::Leading) => {}
            (Mode::Locks, Stand::Waiting) => self.probe(),
            (Mode::Lease, Stand::Waiting | Stand::Leading) => {
                spawn_local(renew_lease(Rc::clone(self), self.campaign.get()));
            }
        }
    }

    /// Asks for the leader; after enough silence takes its place.
    fn probe(self: &Rc<Self>) {
        self.ring_in(PROBE_MS);
        if page::is_hidden() || self.channel.is_none() {
            self.probes_unanswered.set(0);
            return;
        }
        if self.probes_unanswered.get() >= PROBES_UNANSWERED_MAX {
            self.probes_unanswered.set(0);
            let campaign = self.next_campaign();
            spawn_local(hold_lock(Rc::clone(self), campaign, Asking::ByForce));
            return;
        }
        self.probes_unanswered.set(self.probes_unanswered.get() + 1);
        self.say(kind::PROBE, &[]);
    }

    fn hear(&self, message: &JsValue) {
        let Some(message) = message.dyn_ref::<js_sys::Uint8Array>() else {
            return;
        };
        let message = message.to_vec();
        match message.split_first() {
            Some((&kind::HINT, hint)) => (self.sink)(TabEvent::Hint(hint.to_vec())),
            Some((&kind::PROBE, _)) if self.is_leading() => {
                self.say(kind::PRESENT, &[]);
            }
            Some((&kind::PRESENT, _)) => self.probes_unanswered.set(0),
            _ => {}
        }
    }

    fn say(&self, kind: u8, content: &[u8]) {
        if let Some(channel) = &self.channel {
            let message = [&[kind], content].concat();
            // Fails only when the channel is closed; hints may be lost.
            let _ = channel.post_message(&js_sys::Uint8Array::from(message.as_slice()));
        }
    }

    fn ring_in(&self, delay_ms: u64) {
        if let Some(timer) = self.timer.borrow().upgrade() {
            timer.set(delay_ms);
        }
    }

    fn ring_never(&self) {
        if let Some(timer) = self.timer.borrow().upgrade() {
            timer.clear();
        }
    }

    fn is_current(&self, campaign: u64) -> bool {
        self.campaign.get() == campaign
    }

    fn is_leading(&self) -> bool {
        matches!(*self.stand.borrow(), Stand::Leading)
    }

    fn elected(&self) {
        self.stand.replace(Stand::Leading);
        (self.sink)(TabEvent::Elected);
    }

    fn deposed(&self) {
        if self.is_leading() {
            self.stand.replace(Stand::Waiting);
            (self.sink)(TabEvent::Deposed);
        }
    }
}

/// How the lock is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    InTurn,
    ByForce,
}

/// The request for the lock, waiting or granted.
struct LockRequest {
    abort: AbortController,
    /// Ends the promise for whose life the lock is held.
    release: Release,
    _held: Held,
}

type Release = Rc<RefCell<Option<(js_sys::Function, Held)>>>;

impl LockRequest {
    fn let_go(self) {
        self.abort.abort();
        if let Some((release, _)) = self.release.borrow_mut().take() {
            let _ = release.call0(&JsValue::NULL);
        }
    }
}

/// Waits for the lock and holds it until the campaign is outdated or somebody takes the lock away.
async fn hold_lock(shared: Rc<Shared>, campaign: u64, asking: Asking) {
    match ask_for_lock(&shared, campaign, asking) {
        // Rejected when stolen or aborted; both are told apart by the campaign.
        Some(ended) => drop(JsFuture::from(ended).await),
        None => sleep(ASK_RETRY_MS).await,
    }
    if shared.is_current(campaign) {
        shared.deposed();
        shared.stand_for_election();
    }
}

/// The promise that settles when the request has ended, however it did.
fn ask_for_lock(shared: &Rc<Shared>, campaign: u64, asking: Asking) -> Option<js_sys::Promise> {
    let locks = locks()?;
    let abort = AbortController::new().ok()?;
    let options = js_sys::Object::new();
    // The two options exclude each other.
    let (option, value) = match asking {
        Asking::InTurn => ("signal", JsValue::from(abort.signal())),
        Asking::ByForce => ("steal", JsValue::TRUE),
    };
    js_sys::Reflect::set(&options, &option.into(), &value).ok()?;
    let release = Release::default();
    let granted = Closure::once_into_js({
        let (shared, release) = (Rc::clone(shared), Rc::clone(&release));
        move |_lock: JsValue| {
            if !shared.is_current(campaign) {
                return js_sys::Promise::resolve(&JsValue::UNDEFINED);
            }
            spawn_local(async move { lead(&shared, campaign) });
            js_sys::Promise::new(&mut |resolve, _reject| {
                let held = Held::calling(resolve.clone());
                release.replace(Some((resolve, held)));
            })
        }
    });
    let ended = locks.request(&shared.lock_name, &options, granted.unchecked_ref()).ok()?;
    let held = Held::of(&abort, "abort");
    shared.request.replace(Some(LockRequest { abort, release, _held: held }));
    Some(ended)
}

fn lead(shared: &Shared, campaign: u64) {
    if shared.is_current(campaign) {
        shared.ring_never();
        shared.elected();
    }
}

async fn renew_lease(shared: Rc<Shared>, campaign: u64) {
    let claim = lease::claim(&shared.store, shared.me, clock::now_ms()).await;
    if !shared.is_current(campaign) {
        // Withdrawn while the claim was on its way.
        lease::release(&shared.store, shared.me).await;
        return;
    }
    match claim {
        Ok(Claim::Renewed) if shared.is_leading() => {}
        Ok(Claim::Renewed | Claim::Taken) => {
            // A leader whose lease had ended may have been replaced in between: it begins again.
            shared.deposed();
            shared.elected();
        }
        Ok(Claim::Denied) => shared.deposed(),
        Err(StoreError::Closed) => return shared.withdraw(),
        Err(_) => {}
    }
    shared.ring_in(LEASE_RENEWAL_MS);
}

#[wasm_bindgen]
extern "C" {
    // web-sys has Web Locks only as an unstable API.
    type Locks;
    #[wasm_bindgen(method, catch)]
    fn request(
        this: &Locks,
        name: &str,
        options: &js_sys::Object,
        granted: &js_sys::Function,
    ) -> Result<js_sys::Promise, JsValue>;
}

/// `navigator.locks`, where the page has it: only in secure contexts.
fn locks() -> Option<Locks> {
    let navigator = js_sys::Reflect::get(&js_sys::global(), &"navigator".into()).ok()?;
    if !navigator.is_object() {
        return None;
    }
    let locks = js_sys::Reflect::get(&navigator, &"locks".into()).ok()?;
    locks.is_object().then(|| locks.unchecked_into())
}

fn open_channel(name: &str) -> Option<BroadcastChannel> {
    let constructor = js_sys::Reflect::get(&js_sys::global(), &"BroadcastChannel".into()).ok()?;
    if !constructor.is_function() {
        return None;
    }
    BroadcastChannel::new(name).ok()
}

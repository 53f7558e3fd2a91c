//! One session without its socket: the state machine of core, and what it asks for carried out.
//!
//! A shell hands in what arrives, calls [`Conversation::drain`] after it, and sends what [`Conversation::poll_frame`]
//! gives. Whatever takes time comes back over the [`Inbox`]; a read of the store is handed to the shell, which knows
//! where blocking is allowed.

mod presence;
mod read;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use driftlog_core::connection::ConnectionId;
use driftlog_core::id::{ActorId, ClientId, UserId};
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::{Hello, LogNumber, Nonce};
use driftlog_core::sequencer::BindError;
use driftlog_core::session::acceptor::ComeAgain;
use driftlog_core::session::server::{
    Admission, EntriesRead, Grants, Output, Read, ReadFrom, Refusal, RequestId, ServerSession,
};
use driftlog_core::time::WallMs;
use tokio::sync::mpsc;

use crate::Shared;
use crate::auth::Identity;
use crate::connections::{Entered, Opened, Standpoint};
use crate::environment::entropy;
use crate::fanout::{Feed, Position, Waker};
use crate::room::{Place, Share};
use crate::store::StoreError;
use crate::writer::{Answer, Greeted, Mailbox, Request};

use presence::PresentHere;
pub(crate) use read::{Found, StoreRead};
use sessions::Registration;
pub(crate) use sessions::{Ending, Sessions};

/// One session without its socket.
pub(crate) struct Conversation {
    shared: Arc<Shared>,
    session: ServerSession,
    actor: ActorId,
    user: Option<UserId>,
    /// Who waits for the binding: its client too.
    admitting: Option<(Identity, ClientId)>,
    registration: Option<Registration>,
    standpoint: Arc<Standpoint>,
    entered: Option<Entered>,
    _opened: Opened,
    ended: mpsc::Sender<Ending>,
    mailbox: Mailbox,
    share: Arc<Share>,
    waker: Arc<Waker>,
    follows: BTreeMap<LogNumber, Arc<Feed>>,
    /// Logs of which a snapshot was read, and nothing behind it yet.
    pinned: BTreeSet<LogNumber>,
    present: PresentHere,
}

/// Where what takes time arrives for one session.
pub(crate) struct Inbox {
    pub(crate) answers: mpsc::UnboundedReceiver<Answer>,
    pub(crate) ending: mpsc::Receiver<Ending>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) share: Arc<Share>,
}

impl Conversation {
    pub(crate) fn new(shared: Arc<Shared>) -> (Self, Inbox) {
        let (mailbox, answers) = mpsc::unbounded_channel();
        let (ended, ending) = mpsc::channel(1);
        let mut session = ServerSession::new(shared.environment.steady(), shared.config.idle.as_millis() as u64);
        let (taken, opened) = shared.connections.opened();
        if let Err(ComeAgain { ms_min, ms_max }) = taken {
            session.handle_ending(Code::Overloaded, ms_min, ms_max);
        }
        let (waker, share) = (Arc::<Waker>::default(), shared.room.share());
        let conversation = Self {
            shared,
            session,
            actor: ActorId::LOG,
            user: None,
            admitting: None,
            registration: None,
            standpoint: Arc::default(),
            entered: None,
            _opened: opened,
            ended,
            mailbox,
            share: Arc::clone(&share),
            waker: Arc::clone(&waker),
            follows: BTreeMap::new(),
            pinned: BTreeSet::new(),
            present: PresentHere::default(),
        };
        (conversation, Inbox { answers, ending, waker, share })
    }

    /// Carries out what the session asks for. At most one read of the store is under way; its answer goes to
    /// [`Conversation::found`].
    pub(crate) fn drain(&mut self) -> Option<StoreRead> {
        let mut read = None;
        if self.session.wants_credit() {
            self.session.handle_room(self.share.window_or_wait());
        }
        while let Some(output) = self.session.poll_output() {
            read = self.perform(output).or(read);
        }
        let now = self.shared.environment.steady();
        for (number, at) in self.session.take_moved() {
            if at.is_some() {
                self.present.stands(number);
            }
            self.standpoint.stands(now, number, at);
        }
        self.tell_presence();
        read
    }

    /// The next frame for the socket.
    pub(crate) fn poll_frame(&mut self) -> Option<Arc<[u8]>> {
        self.session.poll_frame()
    }

    /// One message arrived.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        let now = self.shared.environment.steady();
        self.standpoint.heard(now);
        self.session.handle_bytes(now, bytes);
    }

    /// The socket broke the rules below frames.
    pub(crate) fn violated(&mut self, code: Code, reason: &str) {
        self.session.handle_violation(code, reason);
    }

    /// The writer answered.
    pub(crate) fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Bound(bound) => self.bound(bound),
            Answer::Opened(request, facts) => self.session.handle_opened(request, facts),
            Answer::Committed(request, log, outcome) => {
                if let (Ok(outcome), Some(registration)) = (&outcome, &self.registration) {
                    let since = outcome.held.as_ref().map(|_| self.shared.environment.steady());
                    registration.note_held(log, since);
                }
                self.session.handle_room(self.share.window());
                self.session.handle_committed(request, outcome);
            }
        }
    }

    /// Logs that this session follows have grown.
    pub(crate) fn grown(&mut self, grown: BTreeMap<LogNumber, driftlog_core::id::Offset>) {
        grown.into_iter().for_each(|(number, end)| self.session.handle_grew(number, end));
    }

    /// The store was read.
    pub(crate) fn found(&mut self, request: RequestId, found: Result<Found, StoreError>) {
        match found {
            Ok(Found::Entries(read)) => self.session.handle_entries(request, read),
            Ok(Found::Snapshot(read)) => self.session.handle_snapshot(request, read),
            Err(error) => {
                tracing::error!(%error, "a read failed");
                self.session.handle_read_failed(request, "the log could not be read");
            }
        }
    }

    /// Somebody ends this session.
    pub(crate) fn ended(&mut self, ending: Ending) {
        match ending {
            Ending::Superseded => self.go_away(Code::Superseded),
            Ending::Erased => self.go_away(Code::ShuttingDown),
            Ending::Downgraded { reason, since, away_ms } => {
                let away = self.shared.config.connections.away.as_millis() as u64;
                let bounds = away_ms.map_or((away / 2, away.saturating_mul(3) / 2), |asked| (asked, asked));
                self.session.handle_downgraded(reason, since, bounds);
            }
        }
    }

    /// Says go-away and ends; everybody comes back within the spread, at the rate that newcomers are taken in at least.
    pub(crate) fn go_away(&mut self, code: Code) {
        let spread = (self.shared.config.retry_spread.as_millis() as u64).max(self.shared.connections.spread_ms());
        self.session.handle_ending(code, spread / 10, spread);
    }

    /// Whether the socket may be read; if not, the inbox's share tells when to ask again.
    pub(crate) fn may_receive(&self) -> bool {
        self.share.may_be_read() && !self.session.is_congested()
    }

    /// The deadline that [`Conversation::timeout`] gave has come.
    pub(crate) fn handle_timeout(&mut self) {
        let now = self.shared.environment.steady();
        if !self.share.may_be_read() {
            self.session.handle_unheard(now);
        }
        self.session.handle_timeout(now);
    }

    /// When [`Conversation::handle_timeout`] wants to be called, in steady time.
    pub(crate) fn timeout(&self) -> WallMs {
        self.session.timeout()
    }

    /// Whether the session has ended: send what [`Conversation::poll_frame`] still gives, and close.
    pub(crate) fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// Whether it was ever welcomed.
    pub(crate) fn is_welcomed(&self) -> bool {
        self.entered.is_some()
    }

    /// Whether answers to the peer are still under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.session.is_settled()
    }

    fn perform(&mut self, output: Output) -> Option<StoreRead> {
        if matches!(output, Output::Open(_) | Output::Append(_) | Output::Settle { .. }) {
            self.standpoint.acted(self.shared.environment.steady());
        }
        match output {
            Output::Authenticate(hello) => self.authenticate(hello),
            Output::Refresh(token) => {
                let answer = self.refresh(&token);
                self.session.handle_refreshed(answer);
            }
            Output::Open(open) => {
                // Followed before its facts are read, so that no growth is missed between the two.
                if open.read {
                    let feed = self.shared.feeds.follow(&open.name, &self.waker, open.log);
                    self.follows.insert(open.log, feed);
                }
                self.request(Request::Open { open, reply: self.mailbox.clone() }, 0);
            }
            Output::Append(append) => {
                // Only who was admitted pushes, and who was admitted has a user.
                if let Some(user) = self.user.clone() {
                    let now = self.shared.environment.steady();
                    self.shared.gate.append(append, user, self.mailbox.clone(), &self.share, now);
                }
            }
            Output::Present { name, value } => self.say(name, value.as_deref()),
            Output::Settle { name, through } => {
                self.request(Request::Settle { name, actor: self.actor, through }, 0);
            }
            Output::Read(read) => return self.read(read),
            Output::Forget { log, name } => {
                self.fall_silent(&name);
                self.present.forget(log);
                if let Some(feed) = self.follows.remove(&log) {
                    self.shared.feeds.leave(feed, &self.waker, log);
                }
            }
            Output::Keep { bytes, code, reason } => {
                if self.shared.sessions.seen_before(&bytes) {
                    let source = match &self.user {
                        Some(user) => format!("socket of {user}"),
                        None => "socket".to_owned(),
                    };
                    let count = bytes.len() as u64;
                    self.request(Request::Keep { bytes, source, code, reason }, count);
                }
            }
            Output::Close => {}
        }
        None
    }

    /// Hands work to the writer, in the room of this session; whether it was taken.
    fn request(&self, request: Request, bytes: u64) -> bool {
        self.shared.writer.send_claimed(request, self.share.claim(Place::Writer, bytes))
    }

    fn authenticate(&mut self, hello: Box<Hello>) {
        let now = self.shared.environment.now();
        let identity = match self.shared.config.access.identify(hello.token.as_deref(), now) {
            Ok(identity) => identity,
            Err(refusal) => return self.session.handle_admitted(now, Err(refusal)),
        };
        let (user, client) = (identity.user.clone(), hello.client);
        if !self.shared.connections.admit(&ConnectionId { user, client }) {
            let quiet = self.shared.config.connections.quiet.as_millis() as u64;
            return self.session.handle_ending(Code::Overloaded, quiet / 2, quiet.saturating_mul(3) / 2);
        }
        self.actor = hello.actor;
        self.user = Some(identity.user.clone());
        let nonce = Nonce(entropy(&*self.shared.environment));
        let (user, reply) = (identity.user.clone(), self.mailbox.clone());
        self.admitting = Some((identity, client));
        if !self.request(Request::Bind { hello, user, nonce, reply }, 0) {
            let reason = "the server is ending".to_owned();
            self.session.handle_admitted(now, Err(Refusal { code: Code::ShuttingDown, reason }));
        }
    }

    fn bound(&mut self, bound: Result<Greeted, BindError>) {
        let Some((identity, client)) = self.admitting.take() else { return };
        let Identity { user, grants, expires, .. } = identity;
        let expires = self.deadline(expires);
        let answer = match bound {
            Ok(Greeted { was, nonce }) => {
                let id = ConnectionId { user: user.clone(), client };
                let standpoint = Arc::clone(&self.standpoint);
                self.entered = Some(self.shared.connections.enter(id, self.ended.clone(), standpoint));
                Ok(Admission { user, grants, expires, nonce, was })
            }
            Err(error) => Err(Refusal { code: error.code(), reason: error.to_string() }),
        };
        if answer.is_ok() {
            self.registration = Some(self.shared.sessions.register(self.actor, self.ended.clone()));
            self.session.handle_room(self.share.first_window());
        }
        self.session.handle_admitted(self.shared.environment.now(), answer);
    }

    fn refresh(&self, token: &str) -> Result<(Grants, Option<WallMs>), Refusal> {
        let identity = self.shared.config.access.identify(Some(token), self.shared.environment.now())?;
        if self.user.as_ref() != Some(&identity.user) {
            let reason = "the token is of another user".to_owned();
            return Err(Refusal { code: Code::UserChanged, reason });
        }
        Ok((identity.grants, self.deadline(identity.expires)))
    }

    /// A time by the wall clock, as a deadline in steady time: the clock may be set meanwhile.
    fn deadline(&self, expires: Option<WallMs>) -> Option<WallMs> {
        let (now, steady) = (self.shared.environment.now(), self.shared.environment.steady());
        expires.map(|expires| steady.saturating_add(expires.saturating_sub(now)))
    }

    /// Reads from the feed at once if the position is there; else the store must be read.
    fn read(&mut self, read: Read) -> Option<StoreRead> {
        let feed = self.follows.get(&read.log).cloned()?;
        let (now, steady) = (self.shared.environment.now(), self.shared.environment.steady());
        let Read { request, log, name, actor, held, from, until } = read;
        let (position, begun) = match from {
            ReadFrom::Cursor(from) => (Some(Position { number: log, from, actor, held }), None),
            ReadFrom::Snapshot(begun) => {
                self.pinned.insert(log);
                (None, begun)
            }
        };
        // A stretch of history ends where it was asked to; what is in memory is of those who follow.
        if let Some(frame) = position.filter(|_| until.is_none()).and_then(|position| feed.frame(now, position)) {
            if self.pinned.remove(&log)
                && let ReadFrom::Cursor(at) = from
            {
                self.shared.pins.release(&name, actor, at.next);
            }
            self.session.handle_entries(request, EntriesRead::Frame(frame));
            return None;
        }
        let pins = Arc::clone(&self.shared.pins);
        Some(StoreRead { request, name, feed, now, steady, actor, pins, position, until, begun })
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.fall_silent_everywhere();
        for (number, feed) in std::mem::take(&mut self.follows) {
            self.shared.feeds.leave(feed, &self.waker, number);
        }
    }
}

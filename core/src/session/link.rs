//! The client's link to its server: one state, its reason, and when the next attempt starts.
//!
//! ```text
//!            connect             opened              welcome
//!   offline ─────────► connecting ─────► connecting ─────────► live
//!      ▲                   │ closed, silent                     │ closed, silent, go-away
//!      │ disconnect        ▼                                    ▼
//!      └────────────── backing-off ◄────────────────────────────┘
//!                          │ time, or a wake-up (online, visible)
//!                          └────────► connecting
//!   refused for the token ─► needs-auth ─ new token ─► connecting
//!   refused for good ──────► blocked (a new version, or another user's database)
//! ```
//!
//! It never parks silently: every state but `live` has a reason, and every waiting state a time.
//! Liveness is judged by answered traffic alone.

use crate::protocol::Code;
use crate::random::Random;
use crate::session::backoff::Backoff;
use crate::time::WallMs;

/// How long a socket may take to open and be welcomed, in milliseconds.
pub const GREETING_MS_MAX: u64 = 15_000;
/// Silence after which the client asks whether the server is there, in milliseconds.
pub const PING_MS: u64 = 20_000;
/// How long an answer to a ping may take, in milliseconds.
pub const PONG_MS_MAX: u64 = 10_000;

/// The state of the link, as apps see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Not wanted yet: no address, or another tab leads.
    Idle,
    /// A socket is opening or the welcome is awaited.
    Connecting,
    /// The session stands.
    Live,
    /// The next attempt waits for its time.
    BackingOff,
    /// The app said so.
    Offline,
    /// The server wants a valid token.
    NeedsAuth,
    /// Nothing will change by trying again.
    Blocked,
    /// The client was closed.
    Closed,
}

impl LinkState {
    /// The word used in TypeScript and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::BackingOff => "backing-off",
            Self::Offline => "offline",
            Self::NeedsAuth => "needs-auth",
            Self::Blocked => "blocked",
            Self::Closed => "closed",
        }
    }
}

/// What the link asks its engine to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkAct {
    /// Open a socket (a token comes first where the app gives one).
    Open,
    /// Close the socket, if there is one.
    Close,
    /// Send a ping.
    Ping,
}

/// The link.
#[derive(Clone, Debug)]
pub struct Link {
    state: LinkState,
    reason: String,
    /// When something happens by itself: the next attempt, or the end of patience.
    due: Option<WallMs>,
    backoff: Backoff,
    /// Until when the server asked us to stay away.
    asked_until: WallMs,
    heard: WallMs,
    pinged: bool,
}

impl Default for Link {
    fn default() -> Self {
        let reason = "not connected yet".to_owned();
        let (due, backoff) = (None, Backoff::default());
        Self { state: LinkState::Idle, reason, due, backoff, asked_until: 0, heard: 0, pinged: false }
    }
}

impl Link {
    /// The state.
    pub fn state(&self) -> LinkState {
        self.state
    }

    /// Why it is so, for people.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// When the next attempt starts.
    pub fn retry_at(&self) -> Option<WallMs> {
        if self.state == LinkState::BackingOff { self.due } else { None }
    }

    /// When [`Link::timeout`] wants to be called.
    pub fn deadline(&self) -> Option<WallMs> {
        match self.state {
            LinkState::Connecting | LinkState::BackingOff => self.due,
            LinkState::Live => Some(self.heard + if self.pinged { PING_MS + PONG_MS_MAX } else { PING_MS }),
            _ => None,
        }
    }

    /// The app or the tab wants a connection.
    pub fn connect(&mut self, now: WallMs) -> Option<LinkAct> {
        match self.state {
            LinkState::Connecting | LinkState::Live | LinkState::Closed => None,
            _ => Some(self.attempt(now)),
        }
    }

    /// The app wants none, until it says otherwise.
    pub fn disconnect(&mut self) -> Option<LinkAct> {
        self.rest(LinkState::Offline, "switched off by the app")
    }

    /// Another tab leads; its link is the client's.
    pub fn yield_lead(&mut self) -> Option<LinkAct> {
        self.rest(LinkState::Idle, "another tab holds the connection")
    }

    /// The client ends.
    pub fn close(&mut self) -> Option<LinkAct> {
        self.rest(LinkState::Closed, "closed by the app")
    }

    /// The network or the page came back: do not wait any longer than the server asked for.
    pub fn wake(&mut self, now: WallMs) -> Option<LinkAct> {
        match self.state {
            LinkState::BackingOff if now < self.asked_until => None,
            LinkState::BackingOff => Some(self.attempt(now)),
            // The socket may have died while the page slept: ask.
            LinkState::Live if !self.pinged => {
                self.pinged = true;
                self.heard = now.saturating_sub(PING_MS);
                Some(LinkAct::Ping)
            }
            _ => None,
        }
    }

    /// The server welcomed us.
    pub fn welcomed(&mut self, now: WallMs) {
        self.state = LinkState::Live;
        self.reason.clear();
        self.due = None;
        self.backoff.succeed();
        self.heard(now);
    }

    /// Something came from the server.
    pub fn heard(&mut self, now: WallMs) {
        self.heard = now;
        self.pinged = false;
    }

    /// The socket closed, or must close for a reason that time may heal.
    pub fn lost(&mut self, reason: &str, now: WallMs, random: &mut Random) -> Option<LinkAct> {
        if !matches!(self.state, LinkState::Connecting | LinkState::Live) {
            return None;
        }
        let wait = self.backoff.fail(random);
        self.wait(reason, now.saturating_add(wait))
    }

    /// The server asked us to come back within these bounds, in milliseconds.
    pub fn sent_away(&mut self, reason: &str, now: WallMs, bounds: (u64, u64), random: &mut Random) -> Option<LinkAct> {
        let spread = random.below(bounds.1.saturating_sub(bounds.0).saturating_add(1));
        let until = now.saturating_add(bounds.0.saturating_add(spread));
        // Whole cities come back online at once, and everybody's spread is to hold then too.
        self.asked_until = until;
        self.wait(reason, until)
    }

    /// The server refused us.
    pub fn refused(&mut self, code: Code, reason: &str, now: WallMs, random: &mut Random) -> Option<LinkAct> {
        let said = format!("{code}: {reason}");
        match code {
            Code::Unauthenticated | Code::TokenExpired => self.rest(LinkState::NeedsAuth, &said),
            Code::ProtocolVersion | Code::UserChanged | Code::ActorTaken | Code::ActorForked | Code::ActorForgotten => {
                self.rest(LinkState::Blocked, &said)
            }
            _ => self.lost(&said, now, random),
        }
    }

    /// The clock stepped back by so much: what is due comes that much earlier by it.
    pub fn clock_stepped_back(&mut self, by: WallMs) {
        self.due = self.due.map(|due| due.saturating_sub(by));
        self.asked_until = self.asked_until.saturating_sub(by);
        self.heard = self.heard.saturating_sub(by);
    }

    /// The app gave a token.
    pub fn authorize(&mut self, now: WallMs) -> Option<LinkAct> {
        if self.state == LinkState::NeedsAuth { Some(self.attempt(now)) } else { None }
    }

    /// Time has come to [`Link::deadline`].
    pub fn timeout(&mut self, now: WallMs, random: &mut Random) -> Option<LinkAct> {
        if self.deadline().is_none_or(|due| now < due) {
            return None;
        }
        match self.state {
            LinkState::BackingOff => Some(self.attempt(now)),
            LinkState::Connecting => self.lost("no answer from the server", now, random),
            LinkState::Live if self.pinged => self.lost("the server fell silent", now, random),
            LinkState::Live => {
                self.pinged = true;
                Some(LinkAct::Ping)
            }
            _ => None,
        }
    }

    fn attempt(&mut self, now: WallMs) -> LinkAct {
        self.state = LinkState::Connecting;
        self.reason = "connecting".to_owned();
        self.due = Some(now + GREETING_MS_MAX);
        LinkAct::Open
    }

    fn wait(&mut self, reason: &str, until: WallMs) -> Option<LinkAct> {
        self.state = LinkState::BackingOff;
        self.reason = reason.to_owned();
        self.due = Some(until);
        Some(LinkAct::Close)
    }

    fn rest(&mut self, state: LinkState, reason: &str) -> Option<LinkAct> {
        if self.state == LinkState::Closed {
            return None;
        }
        self.state = state;
        self.reason = reason.to_owned();
        self.due = None;
        Some(LinkAct::Close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> (Link, Random) {
        let (mut link, random) = (Link::default(), Random::new([1; 32]));
        assert_eq!(link.connect(0), Some(LinkAct::Open));
        link.welcomed(1_000);
        (link, random)
    }

    #[test]
    fn silence_is_asked_about_and_then_ends_the_session() {
        let (mut link, mut random) = live();
        assert_eq!(link.timeout(20_999, &mut random), None);
        assert_eq!(link.timeout(21_000, &mut random), Some(LinkAct::Ping));
        assert_eq!(link.timeout(31_000, &mut random), Some(LinkAct::Close));
        assert_eq!(link.state(), LinkState::BackingOff);
        assert!(link.retry_at().is_some());
    }

    #[test]
    fn a_wake_up_does_not_wait_for_the_backoff() {
        let (mut link, mut random) = live();
        link.lost("gone", 2_000, &mut random);
        assert_eq!(link.wake(2_001), Some(LinkAct::Open));
    }

    #[test]
    fn a_wake_up_waits_as_long_as_the_server_asked_for_and_the_app_need_not() {
        let (mut link, mut random) = live();
        assert_eq!(link.sent_away("busy", 2_000, (500, 600), &mut random), Some(LinkAct::Close));
        let due = link.retry_at().expect("it waits");
        assert!((2_500..=2_600).contains(&due));
        assert_eq!((link.wake(due - 1), link.state()), (None, LinkState::BackingOff));
        assert_eq!(link.clone().wake(due), Some(LinkAct::Open));
        assert_eq!(link.connect(2_001), Some(LinkAct::Open), "who asks for it need not wait");
    }

    #[test]
    fn the_app_can_switch_it_off_and_nothing_reconnects_by_itself() {
        let (mut link, mut random) = live();
        assert_eq!(link.disconnect(), Some(LinkAct::Close));
        assert_eq!((link.wake(9), link.timeout(u64::MAX, &mut random)), (None, None));
        assert_eq!(link.connect(10), Some(LinkAct::Open));
    }

    #[test]
    fn a_token_problem_waits_for_a_token_and_a_foreign_user_for_ever() {
        let (mut link, mut random) = live();
        link.refused(Code::TokenExpired, "", 0, &mut random);
        assert_eq!(link.state(), LinkState::NeedsAuth);
        assert_eq!(link.authorize(5), Some(LinkAct::Open));
        link.refused(Code::UserChanged, "", 0, &mut random);
        assert_eq!((link.state(), link.wake(7)), (LinkState::Blocked, None));
    }
}

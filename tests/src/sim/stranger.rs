//! A client in raw frames before the simulated server: it says what no engine would, and when none would.

use driftlog_core::id::Base;
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::{Frame, Nonce};
use driftlog_server::stepped::SessionNumber;

use super::story::Story;
use super::world::World;
use crate::peer::Peer;

/// Milliseconds that an answer takes at most.
const ANSWER_MS: u64 = 1_000;
/// How long a token is good for, in milliseconds.
const TOKEN_MS: u64 = 3_600_000;

/// Somebody who writes frames by hand, to the log of stories.
pub struct Stranger {
    story: Story,
    /// What it remembers.
    pub peer: Peer,
    session: Option<SessionNumber>,
}

impl Stranger {
    /// A client of the user with this name that has said nothing yet.
    pub fn new(story: &Story, name: &str) -> Self {
        Self::with(story, Peer::new(name), name)
    }

    /// A client with this memory and a token of the user with this name.
    pub fn with(story: &Story, mut peer: Peer, user: &str) -> Self {
        peer.token = Some(story.world().host.token(user, TOKEN_MS));
        Self { story: story.clone(), peer, session: None }
    }

    /// The hello that it would say now.
    pub fn hello(&self) -> Frame {
        Frame::Hello(self.peer.hello())
    }

    /// A hello arrives on a fresh socket, which is the one to speak on from now on.
    ///
    /// # Errors
    /// The code that it is turned away with.
    ///
    /// # Panics
    /// If the server is down, or says nothing.
    pub fn arrives(&mut self, hello: &Frame) -> Result<Nonce, Code> {
        let session = self.story.world().host.server.as_mut().expect("a server").connect();
        self.session = Some(session);
        let answer = self.say(hello).into_iter().find_map(|frame| match frame {
            Frame::Welcome(welcome) => Some(Ok(welcome.nonce)),
            Frame::Error(error) => Some(Err(error.code)),
            _ => None,
        });
        answer.expect("an answer to a hello")
    }

    /// The welcome with this nonce came, and is remembered.
    pub fn remembers(&mut self, nonce: Nonce) {
        self.peer.nonces.insert(0, nonce);
        self.peer.nonces.truncate(2);
    }

    /// Connects, and opens the log under the number 1; its end is the base of what it does next.
    ///
    /// # Panics
    /// If it is turned away.
    pub fn connect(&mut self) {
        let nonce = self.arrives(&self.hello()).expect("welcome");
        self.remembers(nonce);
        let opened = self.say(&Frame::from(self.peer.subscription(1))).into_iter().find_map(|frame| match frame {
            Frame::Opened(opened) => Some(opened),
            _ => None,
        });
        let opened = opened.expect("the log opens");
        self.peer.base = Base { epoch: opened.epochs.last().expect("an epoch").0, end: opened.end };
    }

    /// Says something and hears what is said within a second.
    ///
    /// # Panics
    /// If it has not connected.
    pub fn say(&mut self, frame: &Frame) -> Vec<Frame> {
        let session = self.session.expect("connect first");
        self.story.world().stranger_says(session, frame.encode());
        self.story.run_for(ANSWER_MS);
        self.story.world().stranger_hears(session)
    }

    /// Marks of the acks among frames: seq and code of each.
    pub fn marks(frames: &[Frame]) -> Vec<(u64, Option<Code>)> {
        let acks = frames.iter().filter_map(|frame| match frame {
            Frame::Ack(ack) => Some(ack),
            _ => None,
        });
        acks.flat_map(crate::peer::marks).collect()
    }
}

impl World {
    fn stranger_says(&mut self, session: SessionNumber, bytes: Vec<u8>) {
        if let Some(server) = &mut self.host.server {
            server.receive(session, &bytes);
        }
        self.host_look();
    }

    fn stranger_hears(&mut self, session: SessionNumber) -> Vec<Frame> {
        let Some(server) = &mut self.host.server else { return Vec::new() };
        let frames = std::iter::from_fn(|| server.poll_frame(session));
        frames.map(|bytes| Frame::decode(&bytes).expect("a frame of the server")).collect()
    }
}

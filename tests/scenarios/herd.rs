//! Ten thousand clients that come at once: real links and the real acceptor, and a server that needs its time for each.
//!
//! Engines and logs are left out, or this would take hours: what is under test is who comes when. The server takes
//! hellos in one after the other, and each costs it time whether its client still waits for the answer or has given up.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use driftlog_core::protocol::Code;
use driftlog_core::random::Random;
use driftlog_core::session::acceptor::{Acceptor, ComeAgain};
use driftlog_core::session::link::{Link, LinkAct, LinkState};

const CLIENTS: usize = 10_000;
/// What one newcomer costs: its binding, its logs, and what it missed.
const WELCOME_US: u64 = 1_800;
/// On the wire, there or back.
const WAY_MS: u64 = 40;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A client's deadline.
    Due(usize),
    /// A socket of a client, by its number, reaches the server.
    Arrives(usize, u64),
    /// What the server says reaches the client.
    Welcome(usize, u64),
    Away(usize, u64, u64, u64),
    /// The server is done with somebody.
    Served,
    /// Every device of a city is online again.
    Online,
}

#[derive(Default)]
struct Came {
    last_ms: u64,
    welcomes: usize,
    turned_away: usize,
    wasted: usize,
    waiting_max: usize,
    by_second: BTreeMap<u64, usize>,
}

struct World {
    now_us: u64,
    random: Random,
    events: BinaryHeap<std::cmp::Reverse<(u64, u64, Event)>>,
    drawn: u64,
    links: Vec<Link>,
    sockets: Vec<u64>,
    acceptor: Option<Acceptor>,
    waiting: VecDeque<(usize, u64)>,
    free_us: u64,
    came: Came,
}

impl World {
    fn new(acceptor: Option<Acceptor>, seed: u8) -> Self {
        Self {
            now_us: 1_000_000_000,
            random: Random::new([seed; 32]),
            events: BinaryHeap::new(),
            drawn: 0,
            links: vec![Link::default(); CLIENTS],
            sockets: vec![0; CLIENTS],
            acceptor,
            waiting: VecDeque::new(),
            free_us: 0,
            came: Came::default(),
        }
    }

    fn at(&mut self, us: u64, event: Event) {
        self.drawn += 1;
        self.events.push(std::cmp::Reverse((us, self.drawn, event)));
    }

    fn act(&mut self, client: usize, act: Option<LinkAct>) {
        match act {
            Some(LinkAct::Open) => {
                self.sockets[client] += 1;
                let event = Event::Arrives(client, self.sockets[client]);
                self.at(self.now_us + WAY_MS * 1_000, event);
            }
            Some(LinkAct::Close) => self.sockets[client] += 1,
            // There is nothing to ask: nobody falls silent here.
            Some(LinkAct::Ping) | None => {}
        }
        if self.links[client].state() != LinkState::Live
            && let Some(due) = self.links[client].deadline()
        {
            self.at(due * 1_000, Event::Due(client));
        }
    }

    /// Everybody comes at once, and the city comes back online twice more while they wait.
    fn run(mut self) -> Came {
        let begun_ms = self.now_us / 1_000;
        for client in 0..CLIENTS {
            let act = self.links[client].connect(begun_ms);
            self.act(client, act);
        }
        for second in [3, 7] {
            self.at(self.now_us + second * 1_000_000, Event::Online);
        }
        while let Some(std::cmp::Reverse((us, _, event))) = self.events.pop() {
            self.serve_until(us);
            self.now_us = self.now_us.max(us);
            assert!(us < 1_000_000_000 + 600_000_000, "ten minutes are enough for ten thousand");
            self.handle(event);
        }
        self.came.last_ms -= begun_ms;
        self.came
    }

    fn handle(&mut self, event: Event) {
        let now = self.now_us / 1_000;
        match event {
            Event::Due(client) => {
                let act = self.links[client].timeout(now, &mut self.random);
                if act.is_some() {
                    self.act(client, act);
                }
            }
            Event::Arrives(client, socket) => match self.acceptor.as_mut().map(|acceptor| acceptor.accept(now)) {
                None | Some(Ok(())) => {
                    if self.waiting.is_empty() {
                        self.free_us = self.free_us.max(self.now_us);
                    }
                    self.waiting.push_back((client, socket));
                    let waiting = self.waiting.len();
                    self.came.waiting_max = self.came.waiting_max.max(waiting);
                    self.at(self.free_us + WELCOME_US * waiting as u64, Event::Served);
                }
                Some(Err(ComeAgain { ms_min, ms_max })) => {
                    self.came.turned_away += 1;
                    self.at(self.now_us + WAY_MS * 1_000, Event::Away(client, socket, ms_min, ms_max));
                }
            },
            Event::Welcome(client, socket) if self.sockets[client] == socket => {
                self.links[client].welcomed(now);
                self.came.welcomes += 1;
                self.came.last_ms = now;
                *self.came.by_second.entry(now / 1_000).or_default() += 1;
            }
            Event::Away(client, socket, min, max) if self.sockets[client] == socket => {
                let reason = Code::Overloaded.to_string();
                let act = self.links[client].sent_away(&reason, now, (min, max), &mut self.random);
                self.act(client, act);
            }
            // It has given that socket up.
            Event::Welcome(..) | Event::Away(..) | Event::Served => {}
            Event::Online => {
                for client in 0..CLIENTS {
                    if self.links[client].state() != LinkState::Live {
                        let act = self.links[client].wake(now);
                        self.act(client, act);
                    }
                }
            }
        }
    }

    /// The server works through what waits.
    fn serve_until(&mut self, us: u64) {
        while let Some((client, socket)) = self.waiting.front().copied()
            && self.free_us + WELCOME_US <= us
        {
            self.waiting.pop_front();
            self.free_us += WELCOME_US;
            // It finds out only when it answers.
            self.came.wasted += usize::from(self.sockets[client] != socket);
            self.at(self.free_us + WAY_MS * 1_000, Event::Welcome(client, socket));
        }
    }
}

#[test]
fn ten_thousand_at_once_are_taken_in_at_a_bounded_rate_and_all_of_them_soon() {
    let came = World::new(Some(Acceptor::new(500, 500)), 1).run();
    assert_eq!(came.welcomes, CLIENTS);
    assert_eq!(came.wasted, 0, "nobody gives up on a server that told when");
    assert!(came.waiting_max <= 1_000, "{} wait in the server", came.waiting_max);
    assert!(came.by_second.values().all(|count| *count <= 1_000), "{:?}", came.by_second);
    // At 500 a second ten thousand take twenty seconds; the promised moments are a tenth further apart.
    assert!(came.last_ms < 30_000, "the last one is in after {} ms", came.last_ms);
    assert!(came.turned_away < 3 * CLIENTS, "{} were turned away", came.turned_away);
}

/// What the acceptor is for: a server that takes everybody answers when nobody waits any more, and is asked again.
#[test]
fn without_bounds_the_same_server_works_for_sockets_that_nobody_holds_any_more() {
    let came = World::new(None, 1).run();
    assert!(came.waiting_max >= CLIENTS - 1, "everybody waits in the server");
    assert!(came.wasted > CLIENTS / 10, "{} answers came too late", came.wasted);
}

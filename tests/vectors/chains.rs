//! Chains: how the log chain and the actor chain run, from their start through a few links.

use driftlog_core::chain::Chain;
use driftlog_core::id::{Offset, Seq};
use driftlog_core::time::Time;

use crate::entries::{NOW, acting};
use crate::frames::{ACTOR, LOG, OTHER, log_name};
use crate::{Vector, hex, quoted};

pub(crate) fn vectors() -> Vec<Vector> {
    let entry = acting(1, vec![]);
    let digest = entry.digest();
    let (accepted, base) = (Time::from_parts(NOW, 3), Offset(40));
    let log = Chain::log_start(LOG);
    let linked = log.with_link(ACTOR, Seq(1), accepted, base, digest);
    let again = linked.with_link(OTHER, Seq(9), accepted, base, digest);
    let start = Chain::actor_start(ACTOR, &log_name());
    let pushed = start.with_pushed(Seq(1), digest);
    let void = pushed.with_void(Seq(7), "damaged");
    let number = |number: u64| hex(&number.to_be_bytes());
    let link = |before: Chain, actor: &[u8], seq| {
        [hex(&before.0.0), hex(actor), number(seq), number(accepted.0), number(base.0), hex(&digest.0)]
    };
    let text = |text: &str| hex(text.as_bytes());
    let given_up = Chain(driftlog_core::entry::Digest::of(&[b"driftlog void 1", b"damaged"]));
    vec![
        vector("log, start", "domain, log id", log, &[text("driftlog log chain 1"), hex(&LOG.0)]),
        vector("log, one entry", "before, actor, seq, accepted, base, digest", linked, &link(log, &ACTOR.0, 1)),
        vector("log, another's entry", "before, actor, seq, accepted, base, digest", again, &link(linked, &OTHER.0, 9)),
        vector(
            "actor, start",
            "domain, actor, name of the log",
            start,
            &[text("driftlog actor chain 1"), hex(&ACTOR.0), text("board/42")],
        ),
        vector("actor, one entry", "before, seq, digest", pushed, &[hex(&start.0.0), number(1), hex(&digest.0)]),
        vector("void", "domain, reason: a void's digest", given_up, &[text("driftlog void 1"), text("damaged")]),
        vector(
            "actor, a void",
            "before, last seq, the void's digest",
            void,
            &[hex(&pushed.0.0), number(7), hex(&given_up.0.0)],
        ),
    ]
}

/// The chain as bytes, and the parts whose SHA-256 it is.
fn vector(name: &str, note: &'static str, chain: Chain, parts: &[String]) -> Vector {
    let parts: Vec<_> = parts.iter().map(|part| quoted(part)).collect();
    let is = format!("{{\"sha256\": [{}]}}", parts.join(", "));
    let decode = |bytes: &[u8]| Ok::<_, ()>(bytes.to_vec());
    Vector::decodes(name, note, chain.0.0.to_vec(), chain.0.0.to_vec(), is, decode)
}

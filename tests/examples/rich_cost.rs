//! What one rich change costs as its document grows: `cargo run --release --example rich_cost`.
//!
//! Somebody types with some jumps and deletions; every change is then gated and applied in a batch of its own. A line
//! of JSON for each size; times are microseconds per change, for saving and opening milliseconds in all.

use std::time::Instant;

use driftlog_core::rich::{Candidate, Document, RichActor, Splice};

const TYPIST: RichActor = RichActor([1; 16]);
const SAMPLE: usize = 2000;

fn main() {
    for size in [1_000, 10_000, 100_000] {
        measure(size);
    }
}

fn measure(size: usize) {
    let mut typing = Typing { random: 1, at: 0 };
    let mut document = Document::genesis();
    for _ in 0..size {
        typing.step(&mut document);
    }
    let (mut typist, mut gated, mut reader) = (document.clone(), document.clone(), document.clone());
    let mut changes = Vec::new();
    let edit = timed(|| changes.extend((0..SAMPLE).map(|_| typing.step(&mut typist))));
    let gate = timed(|| {
        for bytes in &changes {
            let verdicts = gated.gate(&[Candidate { bytes, actor: TYPIST }]);
            assert!(verdicts[0].is_ok());
        }
    });
    let apply = timed(|| {
        for bytes in &changes {
            assert!(reader.apply(&[bytes]).is_ok());
        }
    });
    assert!(typist.digest() == gated.digest() && typist.digest() == reader.digest());
    let mut saved = Vec::new();
    let save_first = timed(|| saved = document.save().unwrap_or_default());
    let news: Vec<&[u8]> = changes[..100].iter().map(Vec::as_slice).collect();
    assert!(document.apply(&news).is_ok());
    let save_next = timed(|| saved = document.save().unwrap_or_default());
    let open = timed(|| assert!(Document::load(&saved).is_ok()));
    let each = |seconds: f64| seconds * 1e6 / SAMPLE as f64;
    println!(
        "{{\"changes\":{size},\"edit_us\":{:.2},\"gate_us\":{:.2},\"apply_us\":{:.2},\"save_all_ms\":{:.1},\
         \"save_100_more_ms\":{:.1},\"open_ms\":{:.1},\"saved_bytes\":{}}}",
        each(edit),
        each(gate),
        each(apply),
        save_first * 1e3,
        save_next * 1e3,
        open * 1e3,
        saved.len(),
    );
}

struct Typing {
    random: u64,
    at: usize,
}

impl Typing {
    fn below(&mut self, end: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % end
    }

    fn step(&mut self, document: &mut Document) -> Vec<u8> {
        let len = document.len_utf16();
        if self.below(30) == 0 {
            self.at = self.below(len + 1);
        }
        self.at = self.at.min(len);
        let splice = if self.at > 0 && self.below(6) == 0 {
            self.at -= 1;
            Splice { at: self.at, delete: 1, insert: String::new() }
        } else {
            self.at += 1;
            Splice { at: self.at - 1, delete: 0, insert: "x".to_owned() }
        };
        document.edit(TYPIST, &[splice]).unwrap_or_default()
    }
}

fn timed(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

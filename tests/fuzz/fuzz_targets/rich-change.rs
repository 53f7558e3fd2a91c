//! The target `rich-change`: see `targets.rs`.
#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|content: &[u8]| {
    targets::run("rich-change", content);
});

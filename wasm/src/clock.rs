//! The wall clock, as the browser has it. It may step in both directions; core decides what it means.

/// Milliseconds since 1970. `Date.now` is an integer below 2^53.
pub(crate) fn now_ms() -> u64 {
    js_sys::Date::now().max(0.0) as u64
}

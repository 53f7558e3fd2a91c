//! Answers as tables on a terminal.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value as Json;

/// Rows under each other, the first being their heads; the last column is as wide as it is.
pub(super) fn lay_out<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..COLUMNS - 1).map(width).collect();
    let line = |row: &[String; COLUMNS]| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  "));
        padded.collect::<String>() + &row[COLUMNS - 1]
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A value as a cell: without quotes, on one line, and nothing that moves the cursor, since it may come from anybody.
pub(super) fn cell(value: &Json) -> String {
    match value {
        Json::Null => "-".to_owned(),
        Json::String(text) => text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        other => other.to_string(),
    }
}

/// How long ago a time was, in words.
pub(super) fn age(now: u64, then: &Json) -> String {
    let seconds = now.saturating_sub(then.as_u64().unwrap_or(now)) / 1_000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

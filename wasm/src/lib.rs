//! The Driftlog engine in the browser.

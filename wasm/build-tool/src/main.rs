//! `driftlog-build-tool INPUT.wasm OUT_DIR`: runs wasm-bindgen as a library.
//!
//! It promises the files that `wasm/build.mjs` bundles: `driftlog.js` (an ES module for the web whose `init` must
//! be given the wasm, because no `new URL(…)` is left in it), `driftlog.d.ts` and `driftlog_bg.wasm`.
//! Everything else (optimizing, bundling, types of the public interface) is left to `wasm/build.mjs`.
//! As a crate it always has the very version of wasm-bindgen in `Cargo.lock`, and needs no prebuilt download.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(input), Some(out_dir), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("usage: driftlog-build-tool INPUT.wasm OUT_DIR");
        return ExitCode::from(2);
    };
    match bind(&input, &out_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot bind {}: {error:?}", input.display());
            ExitCode::FAILURE
        }
    }
}

fn bind(input: &Path, out_dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut bindgen = Bindgen::new();
    bindgen
        .input_path(input)
        .out_name("driftlog")
        .web(true)?
        .omit_default_module_path(true)
        .typescript(true)
        .remove_producers_section(true);
    bindgen.generate(out_dir)?;
    Ok(())
}

//! `flux-broker`: one node of a Flux instance.

use flux_broker::start::{Arguments, run};
use std::io::Write;
use std::process::ExitCode;

/// A third of the busiest thread's time went into the C library's allocator, and more the longer an instance had run
/// (docs/design/0008-allocator.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = Arguments::parse(std::env::args().skip(1))
        .map_err(|err| err.to_string())
        .and_then(|args| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|err| format!("runtime: {err}"))?;
            let tasks = tokio::task::LocalSet::new();
            tasks.block_on(&runtime, run(args)).map_err(|err| err.to_string())
        });
    match result {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(text) => {
            // nobody is left to tell when stderr is closed
            drop(writeln!(std::io::stderr(), "flux-broker: {text}"));
            ExitCode::FAILURE
        }
    }
}

//! The second client (Python, standard library) against our broker: `wire_client.py` and `wire_test.py` beside this.

use flux_tests::{Capability, Instance, data_file, missing};

#[test]
fn second_client_agrees_about_the_wire() {
    run("compat/wire_test.py");
}

/// Each request is one that a command of flux-core 0.88 sends.
#[test]
fn stock_commands_get_their_answers() {
    run("compat/stock_test.py");
}

fn run(tests: &str) {
    if missing(Capability::Python) {
        return;
    }
    let flux = Instance::boot(2);
    let mut command = flux.command("python3");
    command
        .args(["-B", &data_file(tests).to_string_lossy()])
        .env("FLUX_URI_1", flux.uri_of(1))
        .env("FLUX_SIZE", "2");
    let output = flux.sandbox().finish(command, b"");
    output.ok().complains("OK");
    flux.stop();
}

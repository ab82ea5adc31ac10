//! The second client (Python, standard library) against our broker: `wire_client.py` and `wire_test.py` beside this.

use flux_tests::{Capability, Instance, data_file, missing};

#[test]
fn second_client_agrees_about_the_wire() {
    if missing(Capability::Python) {
        return;
    }
    let flux = Instance::boot(2);
    let mut command = flux.command("python3");
    command
        .args(["-B", &data_file("compat/wire_test.py").to_string_lossy()])
        .env("FLUX_URI_1", flux.uri_of(1))
        .env("FLUX_SIZE", "2");
    let output = flux.sandbox().finish(command, b"");
    output.ok().complains("OK");
    flux.stop();
}

//! Validators that a site adds: feasibility, require-instance.

use flux_tests::{Instance, Sandbox};

#[test]
fn feasibility_refuses_at_submission() {
    let flux = Instance::builder(1)
        .config("[ingest.validator]\nplugins = [\"jobspec\", \"feasibility\"]\n")
        .boot();
    flux.run(&["run", "true"]).ok();
    flux.run(&["submit", "-N2", "true"])
        .fails()
        .complains("unsatisfiable");
    // the owner may pass over validators; then the scheduler refuses
    let id = flux
        .run(&["submit", "--flags=novalidate", "-N2", "true"])
        .ok()
        .line()
        .to_owned();
    flux.run(&["job", "wait-event", "--timeout=30", &id, "exception"])
        .ok()
        .says("unsatisfiable");
    flux.stop();
}

#[test]
fn direct_jobs_may_be_refused() {
    let config = "[ingest.validator]\nplugins = [\"jobspec\", \"require-instance\"]\n\
                  [ingest.validator.require-instance]\nminnodes = 2\n";
    let flux = Instance::builder(2).config(config).boot();
    flux.run(&["run", "-N1", "true"]).ok();
    flux.run(&["submit", "-N2", "true"])
        .fails()
        .complains("Direct job submission disabled for jobs >= 2 nodes or 32 cores");
    let id = flux
        .run_input(
            &["batch", "-N2", "-o", "output.stdout.type=kvs"],
            b"#!/bin/sh\nflux run -N2 true\n",
        )
        .ok()
        .line()
        .to_owned();
    flux.run(&["job", "wait-event", "--timeout=60", &id, "clean"])
        .ok();
    flux.run(&["job", "status", &id]).ok();
    flux.stop();
}

#[test]
fn jobs_must_meet_a_schema() {
    let config = "[ingest.validator]\nplugins = [\"jobspec\", \"schema\"]\n";
    let flux = Instance::builder(1).config(config).boot();
    flux.run(&["run", "-n1", "true"]).ok();
    flux.run(&["run", "-N1", "--exclusive", "true"]).ok();
    flux.stop();
    let named = "[ingest.validator.schema.properties.attributes.properties.system.properties.job]\n\
                 required = [\"name\"]\n\
                 [ingest.validator.schema.properties.attributes.properties.system.properties.job.properties.name]\n\
                 pattern = \"^[a-z]+-[0-9]+$\"\n";
    let flux = Instance::builder(1).config(&format!("{config}{named}")).boot();
    flux.run(&["run", "--job-name=sim-12", "true"]).ok();
    flux.run(&["submit", "--job-name=mine", "true"])
        .fails()
        .complains("jobspec.attributes.system.job.name: must match ^[a-z]+-[0-9]+$");
    flux.stop();
    let sandbox = Sandbox::new();
    let path = sandbox.write("broken.json", r#"{"type": "nonsense"}"#);
    let broken = format!("{config}args = [\"--schema={}\"]\n", path.display());
    let flux = Instance::builder(1).config(&broken).boot();
    flux.run(&["submit", "true"])
        .fails()
        .complains("broken.json: #/type: must be a type of JSON");
    flux.stop();
}

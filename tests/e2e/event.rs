//! `flux event`: publishing and subscribing across the tree.

use flux_tests::Instance;

#[test]
fn events_reach_every_rank_in_order() {
    let flux = Instance::builder(4).attr("tbon.topo", "kary:1").boot();
    let mut reader = flux.handle(3);
    reader.subscribe("test.").unwrap();
    for number in 0..20 {
        let text = format!("{{\"n\":{number}}}");
        let from = if number % 2 == 0 { 0 } else { 2 };
        flux.on(from, &["event", "pub", &format!("test.{number}"), &text])
            .ok();
    }
    flux.run(&["event", "pub", "other.topic"]).ok();
    let deadline = Some(std::time::Instant::now() + flux_tests::DEADLINE);
    let mut last = 0;
    for number in 0..20 {
        let event = reader.next_event(deadline).unwrap();
        assert_eq!(event.topic.as_str(), format!("test.{number}"));
        let seq = event.aux1;
        assert!(seq > last, "sequence numbers grow: {seq} after {last}");
        last = seq;
    }
    flux.stop();
}

#[test]
fn the_command_prints_topic_and_payload() {
    let flux = Instance::boot(2);
    let output = flux.sh(
        "flux event sub -c 2 demo >out & pid=$!
         n=0; while kill -0 $pid 2>/dev/null; do flux event pub --synchronous demo.one '{\"a\":1}'; n=$((n+1)); test $n -lt 300 || break; done
         wait $pid; cat out",
    );
    assert_eq!(output.ok().lines(), ["demo.one\t{\"a\":1}"; 2], "{output}");
    flux.run(&["event", "pub", "demo", "{not json"]).fails();
    flux.run(&["event", "pub", "--raw", "demo", "any text"]).ok();
    flux.run(&["event", "pub", "--private", "--loopback", "demo.private"])
        .ok();
    flux.stop();
}

//! `flux ping`: round trips to services and ranks, and clear errors for those that are not there.

use flux_tests::Instance;

#[test]
fn ranks_and_services_answer() {
    let flux = Instance::boot(4);
    for target in ["0", "3", "attr", "2!broker", "1!overlay"] {
        let output = flux.run(&["ping", "--count=2", "--interval=0", target]);
        let answers = output
            .ok()
            .lines()
            .iter()
            .filter(|line| line.contains("seq="))
            .count();
        assert_eq!(answers, 2, "{output}");
    }
    let output = flux.run(&["ping", "-c1", "--pad=10", "--userid", "3"]);
    output
        .ok()
        .says("3!broker.ping pad=10 ")
        .says("seq=0 time=")
        .says(" ms (")
        .says("userid=");
    flux.stop();
}

#[test]
fn through_the_tree() {
    let flux = Instance::builder(7).attr("tbon.topo", "kary:2").boot();
    let output = flux.on(6, &["ping", "-c1", "3"]);
    // 6 -> 2 -> 0 -> 1 -> 3: the client's and the four brokers' ids before the last
    let line = output
        .ok()
        .lines()
        .into_iter()
        .find(|line| line.contains("seq=0"))
        .unwrap()
        .to_owned();
    assert_eq!(line.rsplit_once('(').unwrap().1.matches('!').count(), 4, "{line}");
    flux.stop();
}

#[test]
fn missing_targets_are_named() {
    let flux = Instance::boot(2);
    flux.run(&["ping", "-c1", "nosuch"])
        .fails()
        .complains("No service matching nosuch.ping is registered");
    flux.run(&["ping", "-c1", "7"])
        .fails()
        .complains("No route to host");
    flux.stop();
}

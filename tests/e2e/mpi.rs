//! A C program with Debian's MPICH (acceptance 4).

use flux_tests::{Capability, Instance, data_file, missing};

#[test]
fn mpich_hello() {
    if missing(Capability::Mpicc) {
        return;
    }
    let flux = Instance::boot(4);
    let source = data_file("mpi/hello.c");
    flux.sandbox()
        .run("mpicc", &["-o", "mpi_hello", &source.to_string_lossy()])
        .ok();
    let layouts: &[&[&str]] = &[
        &["-n4"],
        &["-N4", "-n8"],
        &["-N4", "-n8", "--taskmap=cyclic"],
        &["-n4", "--taskmap=cyclic"],
    ];
    for layout in layouts {
        let mut args = vec!["run"];
        args.extend(*layout);
        args.push("./mpi_hello");
        let output = flux.run(&args);
        let size = if layout.contains(&"-n8") { 8 } else { 4 };
        let sum: u32 = (0..size).sum();
        let expected: Vec<_> = (0..size)
            .map(|rank| format!("rank {rank} of {size}: sum of ranks {sum}"))
            .collect();
        assert_eq!(output.ok().sorted(), expected, "{layout:?}");
    }
    flux.stop();
}

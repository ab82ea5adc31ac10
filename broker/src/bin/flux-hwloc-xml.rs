//! `flux-hwloc-xml [--norestrict]`: prints hwloc's XML of this host.
//!
//! A program of its own, started when somebody asks for it (`resource.topo-get`): the broker does not link
//! hwloc, so it starts fast, stays small, and does not depend on hwloc's plugins behaving.

use hwlocality::topology::Topology;
use hwlocality::topology::builder::{BuildFlags, TypeFilter};
use hwlocality::topology::export::xml::XMLExportFlags;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let restrict = !std::env::args().any(|arg| arg == "--norestrict");
    match print(restrict) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            // nobody is left to tell when stderr is closed
            drop(writeln!(std::io::stderr(), "flux-hwloc-xml: {err}"));
            ExitCode::FAILURE
        }
    }
}

fn print(restrict: bool) -> Result<(), Box<dyn std::error::Error>> {
    let mut flags = BuildFlags::empty();
    if restrict {
        flags |= BuildFlags::RESTRICT_CPU_TO_THIS_PROCESS | BuildFlags::ASSUME_THIS_SYSTEM;
    }
    let topology = Topology::builder()
        .with_flags(flags)?
        .with_io_type_filter(TypeFilter::KeepImportant)?
        .build()?;
    let xml = topology.export_xml(XMLExportFlags::empty())?;
    std::io::stdout().write_all(xml.as_bytes())?;
    Ok(())
}

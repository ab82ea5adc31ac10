//! How many cores and GPUs has this host? What the kernel tells at once, without hwloc.
//!
//! A core is counted when this process may run on one of its hardware threads; like hwloc after a restriction,
//! cores are numbered from 0. hwloc itself is only asked for its XML (see [`super::topo`]).

use flux_formats::idset::IdSet;
use flux_formats::resource_set::Children;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

/// Where the kernel describes CPUs.
const CPU_DIR: &str = "/sys/devices/system/cpu";
/// One directory per NVIDIA GPU.
const NVIDIA_DIR: &str = "/proc/driver/nvidia/gpus";
/// One directory per node of AMD's kernel driver; those with SIMD units are GPUs.
const AMD_DIR: &str = "/sys/class/kfd/kfd/topology/nodes";

/// Returns the cores and GPUs of this host. Without `restrict` the CPU affinity of this process is ignored.
///
/// # Errors
/// When the affinity mask or the list of CPUs cannot be read.
pub(super) fn local(restrict: bool) -> io::Result<Children> {
    let cpus = if restrict {
        flux_process::affinity::allowed_cpus()?
    } else {
        online_cpus()?
    };
    let cores = u32::try_from(count_cores(&cpus)).unwrap_or(u32::MAX);
    Ok(Children {
        core: IdSet::first_n(cores),
        gpu: IdSet::first_n(count_gpus()),
    })
}

fn online_cpus() -> io::Result<Vec<u32>> {
    let text = fs::read_to_string(Path::new(CPU_DIR).join("online"))?;
    let set: IdSet = text
        .trim()
        .parse()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(set.iter().collect())
}

/// Counts distinct cores: CPUs that are not hardware threads of one already seen.
fn count_cores(cpus: &[u32]) -> usize {
    let no_threads =
        fs::read_to_string(Path::new(CPU_DIR).join("smt/active")).is_ok_and(|text| text.trim() == "0");
    if no_threads {
        return cpus.len();
    }
    let mut seen = HashSet::new();
    for cpu in cpus {
        let path = format!("{CPU_DIR}/cpu{cpu}/topology/thread_siblings_list");
        // without the file (a container that hides it) every CPU counts as a core
        seen.insert(fs::read_to_string(path).unwrap_or_else(|_| cpu.to_string()));
    }
    seen.len()
}

fn count_gpus() -> u32 {
    let nvidia = fs::read_dir(NVIDIA_DIR).map_or(0, |dir| dir.flatten().count());
    let amd = fs::read_dir(AMD_DIR).map_or(0, |dir| {
        dir.flatten().filter(|node| is_amd_gpu(&node.path())).count()
    });
    u32::try_from(nvidia + amd).unwrap_or(u32::MAX)
}

fn is_amd_gpu(node: &Path) -> bool {
    let text = fs::read_to_string(node.join("properties")).unwrap_or_default();
    let simd = text.lines().find_map(|line| line.strip_prefix("simd_count "));
    simd.is_some_and(|count| count.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_cores() {
        let restricted = local(true).unwrap();
        let all = local(false).unwrap();
        assert!(restricted.core.count() >= 1);
        assert!(restricted.core.count() <= all.core.count());
        assert_eq!(restricted.core.first(), Some(0));
    }
}

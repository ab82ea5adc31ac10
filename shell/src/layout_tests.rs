//! Do tasks go where the RFC's vectors and the original's results say?

use proptest::prelude::*;

use super::*;

fn json(layout: &Layout) -> String {
    layout.to_json().to_string()
}

#[test]
fn distribution_prefers_free_nodes() {
    assert_eq!(distribute(&[2, 2], 4, 1), Ok(vec![2, 2]));
    assert_eq!(distribute(&[2, 2], 3, 1), Ok(vec![2, 1]));
    assert_eq!(distribute(&[2, 2, 2, 2], 4, 1), Ok(vec![1, 1, 1, 1]));
    assert_eq!(distribute(&[4, 2], 3, 1), Ok(vec![3, 0]));
    assert_eq!(distribute(&[4, 2], 4, 1), Ok(vec![3, 1]));
    assert_eq!(distribute(&[5, 4], 4, 2), Ok(vec![2, 2]));
    assert_eq!(distribute(&[2], 3, 1), Err(LayoutError::Resources { ntasks: 3, cores: 1 }));
    assert_eq!(distribute(&[2], 1, 0), Err(LayoutError::Resources { ntasks: 1, cores: 0 }));
}

#[test]
fn rfc_34_vectors() {
    assert_eq!(json(&Layout::block(&[4, 4, 4, 4])), "[[0,4,4,1]]");
    assert_eq!(json(&Layout::cyclic(&[4, 4, 4, 4], 1)), "[[0,4,1,4]]");
    assert_eq!(json(&Layout::cyclic(&[4, 4, 4, 4], 2)), "[[0,4,2,2]]");
    assert_eq!(json(&Layout::block(&[4, 4, 2, 4])), "[[0,2,4,1],[2,1,2,1],[3,1,4,1]]");
    assert_eq!(json(&Layout::cyclic(&[4, 4, 2, 4], 1)), "[[0,4,1,2],[0,2,1,1],[3,1,1,1],[0,2,1,1],[3,1,1,1]]");
}

#[test]
fn maps_parse_in_every_form() {
    for text in ["[[0,4,1,4]]", r#"{"version":1,"map":[[0,4,1,4]]}"#] {
        assert_eq!(json(&Layout::parse(text).unwrap()), "[[0,4,1,4]]");
    }
    assert_eq!(json(&Layout::parse("0-1;2-3").unwrap()), "[[0,2,2,1]]");
    assert_eq!(Layout::parse("0,2;1,3").unwrap().tasks_of(1), [1, 3]);
    for bad in ["", "[[0,0,1,1]]", "[[0,1,1]]", "0;2", "0;0", "x", "[[4294967295,1,1,1]]", "{}", "[[0,65536,65536,9]]"] {
        assert!(Layout::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_vector_of_mpich() {
    assert_eq!(Layout::block(&[1, 1]).to_pmi_vector(1024).as_deref(), Some("(vector,(0,2,1))"));
    assert_eq!(Layout::cyclic(&[2, 2], 1).to_pmi_vector(1024).as_deref(), Some("(vector,(0,2,1),(0,2,1))"));
    assert_eq!(Layout::cyclic(&[500, 500], 1).to_pmi_vector(1024), None);
}

proptest! {
    #[test]
    fn every_task_is_on_one_node(counts in prop::collection::vec(0_u32..6, 1..6), stride in 1_u32..4) {
        let total: u32 = counts.iter().sum();
        for layout in [Layout::block(&counts), Layout::cyclic(&counts, stride)] {
            prop_assert_eq!(layout.task_count(), total);
            let mut all = Vec::new();
            for (node, count) in (0..).zip(&counts) {
                let tasks = layout.tasks_of(node);
                prop_assert_eq!(tasks.len(), usize::try_from(*count).unwrap());
                prop_assert!(tasks.is_sorted());
                all.extend(tasks);
            }
            all.sort_unstable();
            prop_assert_eq!(all, (0..total).collect::<Vec<_>>());
            if total > 0 {
                let again = Layout::parse(&layout.to_wrapped_json().to_string()).unwrap();
                prop_assert_eq!(&again, &layout);
            }
        }
    }

    #[test]
    fn distribution_uses_all_and_never_too_much(cores in prop::collection::vec(0_u32..9, 1..6), per in 1_u32..4, ntasks in 0_u32..20) {
        let slots: u32 = cores.iter().map(|cores| cores / per).sum();
        match distribute(&cores, ntasks, per) {
            Ok(counts) => {
                prop_assert_eq!(counts.iter().sum::<u32>(), ntasks);
                for (count, cores) in counts.iter().zip(&cores) {
                    prop_assert!(count * per <= *cores);
                }
            }
            Err(_) => prop_assert!(slots < ntasks),
        }
    }

    #[test]
    fn parsing_never_panics(text in ".{0,40}") {
        let _layout = Layout::parse(&text);
    }
}

//! The examples of `deploy/examples`, run behind a real HAProxy and a real nginx while clients send requests, and against
//! a fake `aws`. Of an example only what its README says is adapted; the app is `tests/payload/shop`.

mod client;
mod haproxy;
mod nginx;
mod pool;
mod story;
mod target_group;

use consign_common::plan::{Phase, Plan};

/// As they stand, before anybody adapts them.
#[test]
fn every_example_is_a_valid_plan_that_drains_first_and_undrains_last_in_both_phases() {
    for name in ["haproxy", "nginx", "target-group"] {
        let text = std::fs::read_to_string(pool::example(name).join("consign.toml")).unwrap();
        let plan = Plan::parse(&text, name).unwrap();
        for phase in [Phase::Deploy, Phase::Return] {
            let steps: Vec<&str> = plan
                .steps
                .iter()
                .filter(|step| step.on.contains(&phase))
                .map(|step| step.name.as_str())
                .collect();
            assert!(steps.first().unwrap().starts_with("drain"), "{name}: {steps:?}");
            assert_eq!(steps.last(), Some(&"undrain"), "{name}");
        }
    }
}

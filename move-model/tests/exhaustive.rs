//! Every small case is searched to the end and holds; every control breaks what it should. The depths of the
//! counterexamples are printed (`--nocapture`).
use move_model::suite::{Case, controls, small, way};
use move_model::{Milestone, Property, Rule};

fn assert_holds(case: &Case) {
    let outcome = case.run();
    let name = case.name;
    for steps in outcome.faults.iter().map(|(_, steps)| steps).chain(&outcome.stuck) {
        steps.iter().for_each(|step| println!("{step}"));
    }
    assert!(outcome.faults.is_empty(), "{name}: property {} is violated", outcome.faults[0].0);
    assert!(outcome.stuck.is_none(), "{name}: recovery cannot succeed");
    assert!(outcome.exhausted, "{name}: not everything was searched");
    assert_eq!(case.missed(&outcome), [], "{name}: never seen, so the search says little");
    println!("{name}: {} states, depth {}", outcome.states, outcome.depth);
}

#[test]
fn movers_may_die_sleep_and_overtake() {
    small().iter().take(1).for_each(assert_holds);
}

#[test]
fn servers_may_fail() {
    small().iter().skip(1).for_each(assert_holds);
}

#[test]
fn every_rule_is_needed() {
    for control in controls() {
        let (rule, outcome) = (control.rule(), control.run());
        for property in control.breaks {
            let steps = way(&outcome, *property);
            let depth = steps.map(<[_]>::len);
            assert!(depth.is_some(), "without {rule}, {} holds all the same", property.label());
            println!("without {rule}: {} breaks after {} steps", property.label(), depth.unwrap());
        }
    }
}

#[test]
fn every_rule_and_property_has_its_control_and_every_milestone_its_case() {
    let covered: Vec<String> = controls().iter().map(|control| control.rule()).collect();
    // The one that is left out in a case instead: what it ensures, the marker on the standby ensures as well.
    for rule in Rule::ALL.iter().filter(|rule| **rule != Rule::FenceOnStandby) {
        assert!(covered.contains(&format!("{rule:?}")), "{rule:?} is never left out");
    }
    let broken: Vec<Property> = controls().iter().flat_map(|control| control.breaks).copied().collect();
    Property::ALL.iter().for_each(|property| assert!(broken.contains(property), "{}", property.label()));
    let seen: Vec<Milestone> = small().iter().flat_map(|case| case.milestones).copied().collect();
    Milestone::ALL.iter().for_each(|milestone| assert!(seen.contains(milestone), "{milestone:?}"));
}

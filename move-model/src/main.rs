//! Prints what the model shows: `cargo run -p move-model`, or with `--small` what the tests search.
use clap::Parser;
use move_model::suite::{self, Case, Control, way};
use move_model::{Property, Step};

/// Searches the model of the bucket move.
#[derive(Parser)]
struct Options {
    /// Only what the tests search, too: seconds instead of minutes.
    #[arg(long)]
    small: bool,
    /// Print the counterexamples of the control without this rule, step by step.
    #[arg(long, value_name = "RULE")]
    trace: Option<String>,
}

fn main() {
    let options = Options::parse();
    if let Some(rule) = options.trace {
        let wanted = |control: &Control| control.rule().eq_ignore_ascii_case(&rule);
        match suite::controls().into_iter().find(wanted) {
            Some(control) => trace(&control),
            None => eprintln!("there is no control without {rule}"),
        }
        return;
    }
    println!("| holds: everything, from every state | states | steps | depth |\n|---|---|---|---|");
    let cases = if options.small { suite::small() } else { [suite::small(), suite::large()].concat() };
    let held = cases.iter().filter(|case| print_case(case)).count();
    println!("\n| left out | breaks, after so many steps |\n|---|---|");
    let controls = suite::controls();
    let broke = controls.iter().filter(|control| print_control(control)).count();
    println!("\n{held} of {} cases hold, {broke} of {} controls break", cases.len(), controls.len());
    std::process::exit(i32::from(held < cases.len() || broke < controls.len()));
}

fn print_case(case: &Case) -> bool {
    let outcome = case.run();
    let missed = case.missed(&outcome);
    let holds =
        outcome.exhausted && outcome.faults.is_empty() && outcome.stuck.is_none() && missed.is_empty();
    let (name, verdict) = (case.name, if holds { "" } else { " **DOES NOT HOLD**" });
    println!("| {name}{verdict} | {} | {} | {} |", outcome.states, outcome.steps, outcome.depth);
    if let Some((property, steps)) = outcome.faults.first() {
        print_way(Property::ALL[*property as usize].label(), steps);
    }
    if let Some(steps) = &outcome.stuck {
        print_way(Property::NeverStuck.label(), steps);
    }
    if !missed.is_empty() {
        println!("never seen: {missed:?}");
    }
    holds
}

fn print_control(control: &Control) -> bool {
    let outcome = control.run();
    let depth = |property: &Property| way(&outcome, *property).map(<[Step]>::len);
    let found: Vec<String> = control
        .breaks
        .iter()
        .map(|property| {
            format!("{} {}", property.label(), depth(property).map_or("NOT".into(), |d| d.to_string()))
        })
        .collect();
    println!("| {} | {} |", control.rule(), found.join(", "));
    control.breaks.iter().all(|property| depth(property).is_some())
}

fn trace(control: &Control) {
    let outcome = control.run();
    for property in control.breaks {
        print_way(property.label(), way(&outcome, *property).unwrap_or_default());
    }
}

fn print_way(what: &str, steps: &[Step]) {
    println!("{what} is broken after {} steps:", steps.len());
    steps.iter().enumerate().for_each(|(number, step)| println!("  {:2}. {step}", number + 1));
}

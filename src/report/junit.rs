//! JUnit XML: a suite per file of gates, a test case per gate.

use std::collections::BTreeMap;

use quick_junit::{NonSuccessKind, Property, TestCase, TestCaseStatus, TestSuite};

use crate::run::State;

use super::{GateReport, Report};

/// The report as JUnit XML. A warned gate is a success with its message as output.
pub fn render(report: &Report) -> String {
    let mut junit = quick_junit::Report::new("postern");
    let mut suites: BTreeMap<&str, TestSuite> = BTreeMap::new();
    for gate in &report.gates {
        suites
            .entry(&gate.suite)
            .or_insert_with(|| suite(report, &gate.suite))
            .add_test_case(case(gate));
    }
    junit.add_test_suites(suites.into_values());
    if let Some(readiness) = &report.readiness {
        let status = if readiness.is_ready {
            TestCaseStatus::success()
        } else {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(readiness.sentence());
            status
        };
        let mut case = TestCase::new("ready", status);
        case.set_classname("readiness");
        let mut suite = TestSuite::new("readiness");
        suite.add_test_case(case);
        junit.add_test_suite(suite);
    }
    finish(&junit)
}

fn suite(report: &Report, name: &str) -> TestSuite {
    let mut suite = TestSuite::new(name);
    if report
        .snapshot
        .as_ref()
        .is_some_and(|snapshot| snapshot.in_recovery)
    {
        suite.add_property(Property::new("hot_standby", "true"));
    }
    suite
}

/// The document with a line break at its end.
pub(super) fn finish(junit: &quick_junit::Report) -> String {
    let mut text = junit
        .to_string()
        .expect("quick-junit writes text to memory");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

pub(super) fn case(gate: &GateReport) -> TestCase {
    let non_success = |kind| {
        let mut status = TestCaseStatus::non_success(kind);
        status
            .set_message(gate.message.as_str())
            .set_type(gate.kind.as_str());
        status.set_description(super::terminal::details(gate));
        status
    };
    let status = match gate.outcome {
        State::Passed | State::Warned => TestCaseStatus::success(),
        State::Failed => non_success(NonSuccessKind::Failure),
        State::Errored => non_success(NonSuccessKind::Error),
        State::Skipped => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(gate.message.as_str());
            status
        }
    };
    let mut case = TestCase::new(gate.id.as_str(), status);
    case.set_classname(format!("{}.{}", gate.suite, gate.kind));
    if gate.outcome == State::Warned {
        let mut text = format!("warned: {}", gate.message);
        if gate.is_accepted() {
            text.push('\n');
            text.push_str(&super::terminal::details(gate));
        }
        case.set_system_out(text);
    }
    case
}

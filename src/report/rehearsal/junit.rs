//! JUnit XML of a rehearsal: what the legacy database must fail, the migrations, the gates, the
//! workloads, the criteria for a rollback; a suite each.

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use crate::report::junit::{case, finish};

use super::RehearsalReport;

/// The report as JUnit XML.
pub fn render(report: &RehearsalReport) -> String {
    let mut junit = quick_junit::Report::new(format!("postern rehearse {}", report.scenario));
    let mut before = TestSuite::new("before");
    for gate in &report.before.gates {
        let odd = report.unexpected.iter().find(|odd| odd.gate == gate.id);
        let status = match odd {
            None => TestCaseStatus::success(),
            Some(odd) => failed(
                NonSuccessKind::Failure,
                &format!(
                    "{}, expected {}",
                    odd.outcome.as_str(),
                    odd.expected.as_str()
                ),
                &gate.message,
            ),
        };
        let mut case = TestCase::new(gate.id.as_str(), status);
        case.set_classname(format!("before.{}", gate.suite));
        case.set_system_out(format!("{}: {}", gate.outcome.as_str(), gate.message));
        before.add_test_case(case);
    }
    let mut migrations = TestSuite::new("migrations");
    for step in &report.migrations.steps {
        let wrong: Vec<&str> = report
            .migrations
            .findings
            .iter()
            .filter(|finding| finding.migration == step.migration && step.pass == "down")
            .map(|finding| finding.message.as_str())
            .collect();
        let status = if wrong.is_empty() {
            TestCaseStatus::success()
        } else {
            let first = wrong[0].lines().next().unwrap_or_default();
            failed(NonSuccessKind::Failure, first, &wrong.join("\n"))
        };
        let mut case = TestCase::new(format!("{} {}", step.migration, step.pass), status);
        case.set_classname("migrations");
        case.set_time(std::time::Duration::from_millis(step.duration_ms));
        migrations.add_test_case(case);
    }
    if let Some(stopped) = &report.migrations.stopped {
        let status = failed(NonSuccessKind::Error, &stopped.message, &stopped.rendered);
        let mut case = TestCase::new("every migration can be executed", status);
        case.set_classname("migrations");
        migrations.add_test_case(case);
    }
    if let Some(stopped) = &report.operation_stopped {
        let status = failed(NonSuccessKind::Error, &stopped.message, &stopped.rendered);
        let mut case = TestCase::new("every script of the operation can be executed", status);
        case.set_classname("operation");
        migrations.add_test_case(case);
    }
    let mut after = TestSuite::new("after");
    after.add_test_cases(report.after.gates.iter().map(case));
    let mut workloads = TestSuite::new("workload");
    for workload in &report.workloads {
        let status = match (&workload.error, workload.is_passed) {
            (Some(error), _) => failed(NonSuccessKind::Error, &workload.message, error),
            (None, true) => TestCaseStatus::success(),
            (None, false) => failed(NonSuccessKind::Failure, &workload.message, ""),
        };
        let mut case = TestCase::new(workload.id.as_str(), status);
        case.set_classname("workload");
        case.set_system_out(workload.message.as_str());
        workloads.add_test_case(case);
    }
    let mut rollback = TestSuite::new("rollback");
    for one in &report.rollback.criteria {
        let status = match one.is_met {
            Some(true) => failed(NonSuccessKind::Failure, &one.detail, ""),
            Some(false) => TestCaseStatus::success(),
            None => TestCaseStatus::skipped(),
        };
        let mut case = TestCase::new(one.name, status);
        case.set_classname("rollback");
        case.set_system_out(one.detail.as_str());
        rollback.add_test_case(case);
    }
    junit.add_test_suites([before, migrations, after, workloads, rollback]);
    finish(&junit)
}

fn failed(kind: NonSuccessKind, message: &str, description: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(message).set_description(description);
    status
}

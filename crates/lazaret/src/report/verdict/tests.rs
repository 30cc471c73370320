//! Tests of the verdicts: each one's both sides, and that nothing measured shows nothing.

use super::*;
use crate::report::data::Refusal;
use Outcome::{NotMeasured, NotShown, Shown};

fn sample() -> Report {
    let sample = include_bytes!("../../../tests/data/report.json");
    Report::from_json(sample).expect("the sample is a report")
}

fn outcome(report: &Report, name: &str) -> Outcome {
    let verdicts = verdicts(report);
    let verdict = verdicts.iter().find(|verdict| verdict.name == name);
    verdict.expect(name).outcome
}

#[test]
fn the_sample_shows_everything_and_an_empty_report_nothing() {
    for verdict in verdicts(&sample()) {
        assert_eq!(verdict.outcome, Shown, "{}", verdict.name);
        assert!(!verdict.figure.is_empty(), "{}", verdict.name);
    }
    for verdict in verdicts(&Report::empty("nothing", 0)) {
        assert_eq!(verdict.outcome, NotMeasured, "{}", verdict.name);
        assert_eq!(verdict.figure, "", "{}", verdict.name);
    }
}

fn set_attack(report: &mut Report, name: &str, protection: Protection, worked: bool) {
    for attack in &mut report.attacks {
        if attack.name == name && attack.protection == protection {
            attack.worked = worked;
        }
    }
}

fn drop_attack(report: &mut Report, name: &str, protection: Protection) {
    report
        .attacks
        .retain(|attack| attack.name != name || attack.protection != protection);
}

fn set_start(report: &mut Report, lazaret: f64, engine: f64) {
    report.start.seconds.insert(Protection::Lazaret, lazaret);
    report.start.seconds.insert(Protection::Default, engine);
}

/// One change to the sample, and what becomes of one verdict.
#[test]
fn both_sides_of_each_verdict() {
    type Change = fn(&mut Report);
    let cases: [(&str, Outcome, Change); 29] = [
        ("complete", NotShown, |r| r.recording.lost = Some(1)),
        ("allow_band", Shown, |r| {
            r.policy.allow_serving = Some(vec![String::new(); 45])
        }),
        ("allow_band", NotShown, |r| {
            r.policy.allow_serving = Some(vec![String::new(); 46])
        }),
        ("slow_down", NotMeasured, |r| r.recording.slow_down = None),
        ("same_answers", NotShown, |r| {
            r.enforced.status_differences = Some(1)
        }),
        ("same_answers", NotMeasured, |r| {
            r.enforced.requests = Some(0)
        }),
        ("same_answers", Shown, |r| r.enforced.requests = None),
        ("no_denials", NotShown, |r| {
            r.enforced.denied_serving = Some(1)
        }),
        ("no_denials", NotMeasured, |r| r.enforced.requests = Some(0)),
        ("start", Shown, |r| set_start(r, 11.5, 10.0)),
        ("start", NotShown, |r| set_start(r, 11.51, 10.0)),
        ("start", NotMeasured, |r| set_start(r, 10.0, 0.0)),
        (MOUNT_ESCAPE, NotShown, |r| {
            set_attack(r, MOUNT_ESCAPE, Protection::LazaretServing, true)
        }),
        (MOUNT_ESCAPE, NotShown, |r| {
            set_attack(r, MOUNT_ESCAPE, Protection::LazaretStartup, true)
        }),
        // A control that does not work proves nothing.
        (MOUNT_ESCAPE, NotShown, |r| {
            set_attack(r, MOUNT_ESCAPE, Protection::Unconfined, false)
        }),
        (MOUNT_ESCAPE, NotMeasured, |r| {
            drop_attack(r, MOUNT_ESCAPE, Protection::Unconfined)
        }),
        (MOUNT_ESCAPE, NotMeasured, |r| {
            drop_attack(r, MOUNT_ESCAPE, Protection::LazaretStartup)
        }),
        (SERVER_SHELL, NotShown, |r| {
            set_attack(r, SERVER_SHELL, Protection::LazaretServing, true)
        }),
        (SERVER_SHELL, NotMeasured, |r| {
            drop_attack(r, SERVER_SHELL, Protection::LazaretServing)
        }),
        ("refusals", NotShown, |r| {
            r.gate
                .refusals
                .iter_mut()
                .for_each(|case| case.started = true)
        }),
        ("refusals", NotShown, |r| {
            r.gate
                .refusals
                .iter_mut()
                .for_each(|case| case.reason.clear())
        }),
        ("refusals", NotMeasured, |r| {
            r.gate.refusals.retain(|case| case.case != "missing")
        }),
        // Even with cases missing: one that started is enough.
        ("refusals", NotShown, |r| {
            r.gate.refusals = vec![Refusal {
                case: "expired".to_owned(),
                started: true,
                reason: String::new(),
            }];
        }),
        ("daemon_restart", NotShown, |r| {
            r.daemon_restart.iter_mut().for_each(|x| x.failed = 1)
        }),
        ("daemon_restart", NotMeasured, |r| {
            r.daemon_restart.iter_mut().for_each(|x| x.requests = 0);
        }),
        ("throughput", NotShown, |r| {
            r.throughput
                .lazaret_over_default
                .iter_mut()
                .for_each(|x| x.median = 0.9);
        }),
        ("throughput", NotMeasured, |r| r.throughput.a_over_a = None),
        ("cpu", Shown, |r| {
            r.cpu_per_request
                .lazaret_over_default
                .iter_mut()
                .for_each(|x| x.median = 1.02);
        }),
        ("cpu", NotShown, |r| {
            r.cpu_per_request
                .lazaret_over_default
                .iter_mut()
                .for_each(|x| x.median = 1.021);
        }),
    ];
    for (index, (name, expected, change)) in cases.into_iter().enumerate() {
        let mut report = sample();
        change(&mut report);
        assert_eq!(outcome(&report, name), expected, "case {index}, {name}");
    }
}

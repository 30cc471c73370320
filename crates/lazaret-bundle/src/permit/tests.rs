//! Permits: both sides of each bound and of both times, the scope, and mutations of signed ones.

use super::*;
use crate::key::Algorithm;
use proptest::prelude::*;

type Failure = Box<dyn std::error::Error>;

/// 2026-01-31T08:00:00Z
const BEGIN: u64 = 1_769_846_400_000;
const HOUR: u64 = 3_600_000;

fn terms() -> Terms {
    Terms {
        images: [Digest::of(b"config")].into(),
        kind: Kind::Exec {
            calls: Calls::Policy,
        },
        reason: "INC-7: look at the heap".to_owned(),
        not_before_ms: BEGIN,
        not_after_ms: BEGIN + 2 * HOUR,
        container: None,
        node: None,
    }
}

fn permit(change: impl FnOnce(&mut Terms)) -> Result<Permit, TermsError> {
    let mut terms = terms();
    change(&mut terms);
    Permit::new(terms)
}

#[test]
fn terms_on_both_sides_of_each_bound() {
    let check = |change: &dyn Fn(&mut Terms), expected: Result<(), &str>| {
        let found = permit(|terms| change(terms)).map(drop);
        let shown = format!("{found:?}");
        assert_eq!(found.map_err(|error| error.check()), expected, "{shown}");
    };
    let images = |count: usize| {
        let digests = 0..count;
        digests
            .map(|number| Digest::of(&number.to_le_bytes()))
            .collect::<BTreeSet<_>>()
    };
    check(&|_| {}, Ok(()));
    check(&|terms| terms.images = images(0), Err("images"));
    check(&|terms| terms.images = images(32), Ok(()));
    check(&|terms| terms.images = images(33), Err("images"));
    for (reason, expected) in [
        (String::new(), Err("reason")),
        ("  ".to_owned(), Err("reason")),
        ("x".to_owned(), Ok(())),
        ("Grüße, 理由".to_owned(), Ok(())),
        ("ö".repeat(500), Ok(())),
        ("ö".repeat(501), Err("reason")),
        ("a\nb".to_owned(), Err("reason")),
        ("a\u{1b}[2J".to_owned(), Err("reason")),
        ("a\u{202e}b".to_owned(), Err("reason")),
    ] {
        check(&|terms| terms.reason.clone_from(&reason), expected);
    }
    let week = 7 * 24 * HOUR;
    for (from, to, expected) in [
        (BEGIN, BEGIN + 1000, Ok(())),
        (BEGIN, BEGIN, Err("time-order")),
        (BEGIN, BEGIN - 1000, Err("time-order")),
        (BEGIN, BEGIN + week, Ok(())),
        (BEGIN, BEGIN + week + 1000, Err("too-long")),
        (BEGIN + 1, BEGIN + HOUR, Err("time")),
        (BEGIN, BEGIN + HOUR + 999, Err("time")),
        (BEGIN, u64::MAX / 1000 * 1000, Err("time")),
        (0, HOUR, Ok(())),
    ] {
        check(
            &|terms| (terms.not_before_ms, terms.not_after_ms) = (from, to),
            expected,
        );
    }
    for (name, as_container, as_node) in [
        ("a", true, true),
        ("fhir-1.test", true, true),
        ("fhir_1", true, false),
        ("", false, false),
        ("-a", false, false),
        ("a/b", false, false),
        ("a b", false, false),
        ("ä", false, false),
    ] {
        let or = |good: bool, name| if good { Ok(()) } else { Err(name) };
        check(
            &|terms| terms.container = Some(name.to_owned()),
            or(as_container, "container-name"),
        );
        check(
            &|terms| terms.node = Some(name.to_owned()),
            or(as_node, "node-name"),
        );
    }
    for (length, container, node) in [(128, true, true), (129, false, true), (254, false, false)] {
        let name = "a".repeat(length);
        assert_eq!(
            permit(|terms| terms.container = Some(name.clone())).is_ok(),
            container
        );
        assert_eq!(
            permit(|terms| terms.node = Some(name.clone())).is_ok(),
            node
        );
    }
}

#[test]
fn it_holds_from_its_beginning_until_just_before_its_end() -> Result<(), Failure> {
    let permit = permit(|_| {})?;
    let at = |unix_ms| permit.holds_at(unix_ms).map_err(|error| error.check());
    for (unix_ms, expected) in [
        (0, Err("not-yet")),
        (BEGIN - 1, Err("not-yet")),
        (BEGIN, Ok(())),
        (BEGIN + 2 * HOUR - 1, Ok(())),
        (BEGIN + 2 * HOUR, Err("expired")),
        (u64::MAX, Err("expired")),
    ] {
        assert_eq!(at(unix_ms), expected, "{unix_ms}");
    }
    let text = permit.holds_at(BEGIN - HOUR).err().ok_or("held")?;
    assert_eq!(
        text.to_string(),
        "permit holds from 2026-01-31T08:00:00Z, now it is 2026-01-31T07:00:00Z"
    );
    let text = permit.holds_at(BEGIN + 2 * HOUR).err().ok_or("held")?;
    assert_eq!(
        text.to_string(),
        "permit held until 2026-01-31T10:00:00Z, now it is 2026-01-31T10:00:00Z"
    );
    Ok(())
}

#[test]
fn it_is_for_one_container_and_node_if_it_says_so() -> Result<(), Failure> {
    let anywhere = permit(|_| {})?;
    assert!(anywhere.applies_to("id", "name", "node").is_ok());
    let container = permit(|terms| terms.container = Some("fhir".to_owned()))?;
    let node = permit(|terms| terms.node = Some("n1".to_owned()))?;
    for (permit, id, name, at, expected) in [
        (&container, "fhir", "", "n2", true),
        (&container, "0123", "fhir", "n2", true),
        (&container, "0123", "fhir2", "fhir", false),
        (&container, "fhi", "", "n1", false),
        (&node, "0123", "fhir", "n1", true),
        (&node, "n1", "n1", "n1.example", false),
    ] {
        let found = permit.applies_to(id, name, at);
        assert_eq!(found.is_ok(), expected, "{id} {name} {at}");
        if let Err(error) = found {
            assert_eq!(error.check(), "scope");
        }
    }
    Ok(())
}

#[test]
fn each_moment_has_one_spelling() {
    assert_eq!(from_utc("2026-01-31T08:00:00Z"), Some(BEGIN));
    assert_eq!(utc(BEGIN), "2026-01-31T08:00:00Z");
    for text in [
        "2026-01-31T08:00:00+00:00",
        "2026-01-31T09:00:00+01:00",
        "2026-01-31t08:00:00z",
        "2026-01-31 08:00:00Z",
        "2026-01-31T08:00:00.000Z",
        "2026-01-31T08:00:00.5Z",
        "2026-01-31T08:00Z",
        "2026-01-31T08:00:00",
        "2026-01-31",
        "2026-02-30T08:00:00Z",
        "2026-01-31T08:00:60Z",
        "1969-12-31T23:59:59Z",
        "now",
        "",
    ] {
        assert_eq!(from_utc(text), None, "{text}");
    }
}

struct Case {
    keys: TrustedKeys,
    image: BTreeSet<Digest>,
    permit: Permit,
    envelope: Vec<u8>,
}

fn case(algorithm: Algorithm) -> Result<Case, Failure> {
    let key = PrivateKey::generate(algorithm)?;
    let permit = permit(|terms| terms.container = Some("fhir".to_owned()))?;
    Ok(Case {
        keys: TrustedKeys::only(key.public().clone()),
        image: [Digest::of(b"config"), Digest::of(b"manifest")].into(),
        envelope: sign_permit(&permit, &[&key])?,
        permit,
    })
}

#[test]
fn a_signed_permit_says_what_was_signed_for_its_image_only() -> Result<(), Failure> {
    let case = case(Algorithm::EcdsaP256)?;
    let verified = verify_permit(&case.envelope, &case.keys, &case.image)?;
    assert_eq!(*verified, case.permit);
    let key = case.keys.iter().next().ok_or("a key")?;
    assert_eq!(verified.key_id(), key.id());
    // asked of what was verified
    assert!(verified.holds_at(BEGIN).is_ok());
    for image in [BTreeSet::new(), [Digest::of(b"other")].into()] {
        let error = verify_permit(&case.envelope, &case.keys, &image).err();
        assert_eq!(error.map(|error| error.check()), Some("image"));
    }
    let stranger = PrivateKey::generate(Algorithm::EcdsaP256)?;
    let keys = TrustedKeys::only(stranger.public().clone());
    let error = verify_permit(&case.envelope, &keys, &case.image).err();
    assert_eq!(error.map(|error| error.check()), Some("signature"));
    Ok(())
}

/// A policy is no permit and a permit no policy, by the same key for the same image.
#[test]
fn papers_of_the_other_kind_are_refused() -> Result<(), Failure> {
    let key = PrivateKey::generate(Algorithm::Ed25519)?;
    let keys = TrustedKeys::only(key.public().clone());
    let policy = crate::verify::tests::policy(&[Digest::of(b"config")])?;
    let bundle = crate::sign(&policy, &[&key])?;
    let permit = sign_permit(&permit(|_| {})?, &[&key])?;
    let error = verify_permit_for_any_image(&bundle, &keys).err();
    assert_eq!(error.map(|error| error.check()), Some("predicate-type"));
    let error = crate::verify_for_any_image(&permit, &keys).err();
    assert_eq!(error.map(|error| error.check()), Some("predicate-type"));
    Ok(())
}

/// Every single byte of a permit's envelope, with one of its bits changed, for both algorithms: more than 2,000 permits of which
/// none says anything else, and none is accepted with a changed payload or signature.
#[test]
fn mutated_permits_are_refused() -> Result<(), Failure> {
    let mut tried = 0;
    for algorithm in [Algorithm::EcdsaP256, Algorithm::Ed25519] {
        let case = case(algorithm)?;
        let text = std::str::from_utf8(&case.envelope)?;
        // the hint of the key's id is nobody's promise (DSSE protocol, "keyid")
        let hint = text.find("\"keyid\"").ok_or("keyid")?;
        let hint = hint..hint + text[hint..].find(",\"sig\"").ok_or("sig")?;
        for at in (0..case.envelope.len()).filter(|at| !hint.contains(at)) {
            for bit in [at % 7, (at + 3) % 7] {
                let mut changed = case.envelope.clone();
                changed[at] ^= 1 << bit;
                let found = verify_permit(&changed, &case.keys, &case.image);
                assert!(found.is_err(), "byte {at}, bit {bit}");
                tried += 1;
            }
        }
    }
    assert!(tried >= 2000, "{tried}");
    Ok(())
}

proptest! {
    /// Terms that are good come back from what was signed, as they were.
    #[test]
    fn what_is_signed_is_what_is_read(
        reason in "[a-zA-Z ]{0,40}[a-z]", begin in 0_u64..4_000_000_000, seconds in 1_u64..=604_800,
        container in prop::option::of("[a-z0-9][a-z0-9_.-]{0,60}"), node in prop::option::of("[a-z0-9][a-z0-9.-]{0,60}"),
        ceiling: bool,
    ) {
        let permit = permit(|terms| {
            terms.reason = reason;
            (terms.not_before_ms, terms.not_after_ms) = (begin * 1000, (begin + seconds) * 1000);
            (terms.container, terms.node) = (container, node);
            let calls = if ceiling { Calls::Ceiling } else { Calls::Policy };
            terms.kind = Kind::Exec { calls };
        });
        let permit = permit.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let predicate = wire::predicate(&permit).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let read = wire::read(permit.terms().images.clone(), &predicate);
        prop_assert_eq!(read.map_err(|error| TestCaseError::fail(error.to_string()))?, permit);
    }

    #[test]
    fn arbitrary_predicates_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(wire::read([Digest::of(b"a")].into(), &bytes).is_err());
    }
}

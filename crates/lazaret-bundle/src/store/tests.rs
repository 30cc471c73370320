//! The store: several revisions, several digests, what lies there that should not, and interrupted changes.

use super::write::{TEMPORARY, directory};
use super::*;
use crate::key::trusted::TrustedKeys;
use crate::key::{Algorithm, PrivateKey};
use crate::signed::Verified;
use crate::verify::{self, tests::policy_revision};
use lazaret_core::policy::Policy;
use std::collections::BTreeSet;
use std::fs;

type Failure = Box<dyn std::error::Error>;
type Outcome = Result<(), Failure>;

fn signed(digests: &[Digest], revision: u64) -> Result<(Verified<Policy>, Vec<u8>), Failure> {
    let key = PrivateKey::generate(Algorithm::Ed25519)?;
    let bundle = verify::sign(&policy_revision(digests, revision)?, &[&key])?;
    let keys = TrustedKeys::only(key.public().clone());
    Ok((verify::verify_for_any_image(&bundle, &keys)?, bundle))
}

/// Installs a revision for these digests with a profile of this text.
fn put(
    store: &Path,
    digests: &[Digest],
    revision: u64,
    profile: &str,
) -> Result<(Digest, Vec<u8>), Failure> {
    let (policy, bundle) = signed(digests, revision)?;
    install(store, &policy, &bundle, profile.as_bytes())?;
    Ok((policy.digest(), bundle))
}

fn numbers(store: &Path, digests: &[Digest]) -> Result<Vec<u64>, StoreError> {
    let digests = digests.iter().copied().collect();
    Ok(revisions(store, &digests)?
        .iter()
        .map(|revision| revision.revision)
        .collect())
}

fn newest(store: &Path, digests: &[Digest]) -> Result<Option<(u64, String)>, StoreError> {
    let found = read_profile_newest(store, &digests.iter().copied().collect())?;
    Ok(found.map(|(revision, profile)| {
        (
            revision.revision,
            String::from_utf8_lossy(&profile).into_owned(),
        )
    }))
}

/// Every path below, with the contents of files.
fn tree(folder: &Path) -> Result<BTreeSet<(PathBuf, Vec<u8>)>, Failure> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(tree(&path)?);
            found.insert((path, Vec::new()));
        } else {
            let bytes = fs::read(&path)?;
            found.insert((path, bytes));
        }
    }
    Ok(found)
}

#[test]
fn revisions_stand_side_by_side_under_every_digest() -> Outcome {
    let folder = tempfile::tempdir()?;
    let store = folder.path();
    let digests = [Digest::of(b"manifest"), Digest::of(b"config")];
    let unknown = Digest::of(b"unknown");
    assert!(!knows(store, &digests.into())?);
    assert!(numbers(store, &digests)?.is_empty());
    assert_eq!(newest(store, &digests)?, None);
    let (three, bundle_three) = put(store, &digests, 3, "three")?;
    // 10 is above 9 and below "9" as a text
    let (ten, bundle_ten) = put(store, &digests, 10, "ten")?;
    let (nine, bundle_nine) = put(store, &digests, 9, "nine")?;
    for digest in digests {
        let image = BTreeSet::from([digest, unknown]);
        assert!(knows(store, &image)?);
        assert_eq!(numbers(store, &[digest, unknown])?, [3, 9, 10]);
        for (policy, bundle) in [
            (three, &bundle_three),
            (nine, &bundle_nine),
            (ten, &bundle_ten),
        ] {
            assert_eq!(read_bundle(store, &image, &policy)?.as_ref(), Some(bundle));
        }
        assert_eq!(read_bundle(store, &image, &unknown)?, None);
        assert_eq!(newest(store, &[digest])?, Some((10, "ten".to_owned())));
    }
    let found = revisions(store, &digests.into())?;
    assert!(found.iter().all(|revision| revision.paths.len() == 2));
    assert!(numbers(store, &[unknown])?.is_empty());
    assert_eq!(
        images(store)?.into_iter().collect::<BTreeSet<_>>(),
        digests.into()
    );
    Ok(())
}

#[test]
fn installing_twice_changes_nothing_and_a_lower_revision_is_told() -> Outcome {
    let folder = tempfile::tempdir()?;
    let store = folder.path();
    let digests = [Digest::of(b"a")];
    let (policy, bundle) = signed(&digests, 4)?;
    let first = install(store, &policy, &bundle, b"{}")?;
    assert_eq!(first.newest, 4);
    let before = tree(store)?;
    let inode = |path: &Path| {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(path).map(|metadata| metadata.ino())
    };
    let number = inode(&first.folders[0])?;
    assert_eq!(install(store, &policy, &bundle, b"{}")?, first);
    assert_eq!(tree(store)?, before);
    assert_eq!(inode(&first.folders[0])?, number, "not even made anew");
    // another profile of the same policy, as for another gate's socket, takes its place as a whole
    install(store, &policy, &bundle, b"{ }")?;
    assert_eq!(newest(store, &digests)?, Some((4, "{ }".to_owned())));
    assert_eq!(tree(store)?.len(), before.len());
    let (lower, bundle) = signed(&digests, 3)?;
    assert_eq!(install(store, &lower, &bundle, b"{}")?.newest, 4);
    assert_eq!(numbers(store, &digests)?, [3, 4]);
    Ok(())
}

#[test]
fn a_number_belongs_to_one_policy() -> Outcome {
    let folder = tempfile::tempdir()?;
    let store = folder.path();
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let (first, _) = put(store, &[a], 3, "{}")?;
    let before = tree(store)?;
    // for one more digest: another policy
    let (other, bundle) = signed(&[a, b], 3)?;
    let error = install(store, &other, &bundle, b"{}").err();
    let text = error.map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(
        text,
        format!(
            "revision 3 is installed as policy {first}, the bundle holds policy {}: raise its revision",
            other.digest()
        )
    );
    assert_eq!(tree(store)?, before);
    // put there by hand, or each for one digest of what is one image: nobody says which one is newest
    put(store, &[b], 3, "{}")?;
    assert!(matches!(
        newest(store, &[a, b]),
        Err(StoreError::Ambiguous { .. })
    ));
    // a higher one settles it
    put(store, &[a, b], 4, "four")?;
    assert_eq!(newest(store, &[a, b])?, Some((4, "four".to_owned())));
    Ok(())
}

#[test]
fn one_revision_that_differs_between_digests_is_refused() -> Outcome {
    let folder = tempfile::tempdir()?;
    let store = folder.path();
    let digests = [Digest::of(b"a"), Digest::of(b"b")];
    let (policy, bundle) = put(store, &digests, 1, "{}")?;
    let found = revisions(store, &digests.into())?;
    fs::write(found[0].paths[1].join(PROFILE), "{ }")?;
    assert!(matches!(
        newest(store, &digests),
        Err(StoreError::Ambiguous { .. })
    ));
    assert_eq!(
        read_bundle(store, &digests.into(), &policy)?.as_ref(),
        Some(&bundle)
    );
    fs::write(found[0].paths[0].join(BUNDLE), "{ }")?;
    assert!(matches!(
        read_bundle(store, &digests.into(), &policy),
        Err(StoreError::Ambiguous { .. })
    ));
    Ok(())
}

#[test]
fn the_newest_without_its_profile_is_not_replaced_by_a_lower_one() -> Outcome {
    let folder = tempfile::tempdir()?;
    let store = folder.path();
    let digests = [Digest::of(b"a")];
    put(store, &digests, 1, "{}")?;
    let (policy, _) = put(store, &digests, 2, "{}")?;
    let path = revisions(store, &digests.into())?[1].paths[0].clone();
    fs::remove_file(path.join(PROFILE))?;
    assert!(
        matches!(newest(store, &digests), Err(StoreError::Incomplete { path: missing }) if missing == path.join(PROFILE))
    );
    fs::remove_file(path.join(BUNDLE))?;
    assert_eq!(read_bundle(store, &digests.into(), &policy)?, None);
    Ok(())
}

#[test]
fn a_removed_revision_is_gone_under_every_digest_and_the_image_still_known() -> Outcome {
    let folder = tempfile::tempdir()?;
    let store = folder.path();
    let (a, b, c) = (Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c"));
    assert!(matches!(
        remove(store, &[a].into(), 1),
        Err(StoreError::NotInstalled { revision: 1 })
    ));
    put(store, &[a, b], 1, "one")?;
    put(store, &[a, b], 2, "two")?;
    put(store, &[c], 2, "another image")?;
    assert_eq!(remove(store, &[a].into(), 2)?.len(), 2);
    assert_eq!(newest(store, &[b])?, Some((1, "one".to_owned())));
    assert_eq!(numbers(store, &[c])?, [2]);
    assert!(matches!(
        remove(store, &[a].into(), 2),
        Err(StoreError::NotInstalled { revision: 2 })
    ));
    remove(store, &[b].into(), 1)?;
    assert_eq!(newest(store, &[a, b])?, None);
    assert!(knows(store, &[a].into())?);
    Ok(())
}

#[test]
fn what_the_store_did_not_put_there_is_refused() -> Outcome {
    let folder = tempfile::tempdir()?;
    let store = folder.path();
    let digest = Digest::of(b"a");
    let image = store.join("images").join(digest.hex());
    let hex = Digest::of(b"policy").hex();
    for (name, good) in [
        (format!("3-{hex}"), true),
        (format!("{}-{hex}", u64::MAX), true),
        (format!("03-{hex}"), false),
        (format!("+3-{hex}"), false),
        (format!("3-{}", hex.to_uppercase()), false),
        (format!("3-{}", &hex[1..]), false),
        (format!("18446744073709551616-{hex}"), false),
        (format!("-{hex}"), false),
        ("notes.txt".to_owned(), false),
    ] {
        let path = image.join(&name);
        fs::create_dir_all(&path)?;
        match numbers(store, &[digest]) {
            Ok(found) => assert!(good && found.len() == 1, "{name}"),
            Err(StoreError::Foreign { path: named }) => assert!(!good && named == path, "{name}"),
            Err(error) => return Err(error.into()),
        }
        fs::remove_dir(&path)?;
    }
    fs::create_dir(store.join("images/elsewhere"))?;
    assert!(matches!(images(store), Err(StoreError::Foreign { .. })));
    Ok(())
}

#[test]
fn an_earlier_layout_is_an_error_until_the_bundle_is_installed_again() -> Outcome {
    let folder = tempfile::tempdir()?;
    let store = folder.path();
    let digests = [Digest::of(b"a")];
    let image = store.join("images").join(digests[0].hex());
    fs::create_dir_all(&image)?;
    for name in [BUNDLE, PROFILE] {
        fs::write(image.join(name), "old")?;
    }
    // left by a crash of an earlier version
    fs::write(image.join(".profile.json.77"), "old")?;
    let (policy, _) = signed(&digests, 1)?;
    let error = read_bundle(store, &digests.into(), &policy.digest()).err();
    let text = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(
        text.ends_with("is of the layout before revisions: install the image's bundle again"),
        "{text}"
    );
    assert!(matches!(
        newest(store, &digests),
        Err(StoreError::OldLayout { .. })
    ));
    put(store, &digests, 1, "new")?;
    assert_eq!(newest(store, &digests)?, Some((1, "new".to_owned())));
    assert_eq!(fs::read_dir(&image)?.count(), 1, "nothing left behind");
    Ok(())
}

#[test]
fn bounds_hold_on_both_sides() -> Outcome {
    let folder = tempfile::tempdir()?;
    let store = folder.path();
    let digests = [Digest::of(b"a")];
    let image = store.join("images").join(digests[0].hex());
    for number in 1..=254_u64 {
        fs::create_dir_all(image.join(format!("{number}-{}", digests[0].hex())))?;
    }
    put(store, &digests, 255, "{}")?;
    let (policy, bundle) = signed(&digests, 256)?;
    assert!(matches!(
        install(store, &policy, &bundle, b"{}"),
        Err(StoreError::Full { found: 255, .. })
    ));
    // replacing needs no room
    put(store, &digests, 255, "{ }")?;
    fs::create_dir(image.join(".being-removed"))?;
    assert_eq!(numbers(store, &digests)?.len(), 255);
    fs::create_dir(image.join(".one-more"))?;
    assert!(matches!(
        numbers(store, &digests),
        Err(StoreError::TooMany { limit: 256, .. })
    ));

    let large = " ".repeat(PROFILE_LIMIT + 1);
    let other = tempfile::tempdir()?;
    let (policy, bundle) = signed(&digests, 1)?;
    assert!(matches!(
        install(other.path(), &policy, &bundle, large.as_bytes()),
        Err(StoreError::ProfileTooLarge { .. })
    ));
    install(other.path(), &policy, &bundle, &large.as_bytes()[1..])?;
    assert_eq!(
        newest(other.path(), &digests)?.map(|(_, text)| text.len()),
        Some(PROFILE_LIMIT)
    );
    Ok(())
}

#[test]
fn what_a_crash_leaves_is_not_read_and_goes_away() -> Outcome {
    let folder = tempfile::tempdir()?;
    let store = folder.path();
    let digests = [Digest::of(b"a")];
    let (policy, bundle) = signed(&digests, 2)?;
    let image = store.join("images").join(digests[0].hex());
    // killed while the directory was being filled
    let half = image.join(format!("{TEMPORARY}2-{}", policy.digest().hex()));
    fs::create_dir_all(&half)?;
    fs::write(half.join(BUNDLE), "half")?;
    assert!(numbers(store, &digests)?.is_empty());
    assert!(knows(store, &digests.into())?);
    install(store, &policy, &bundle, b"{}")?;
    assert!(!half.exists());
    assert_eq!(numbers(store, &digests)?, [2]);
    Ok(())
}

#[test]
fn a_failed_install_leaves_the_old_files() -> Outcome {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("1-a");
    directory(&place, &[("a", b"old"), ("b", b"old")])?;
    // the second file has the name of a directory that is not there: it cannot be made, not even by root
    let error = directory(&place, &[("a", b"new"), ("missing/b", b"new")]);
    assert!(matches!(error, Err(StoreError::Write { .. })));
    assert_eq!(fs::read(place.join("a"))?, b"old");
    assert_eq!(fs::read(place.join("b"))?, b"old");
    assert_eq!(fs::read_dir(folder.path())?.count(), 1);
    directory(&place, &[("a", b"new")])?;
    assert_eq!(fs::read(place.join("a"))?, b"new");
    assert!(!place.join("b").exists(), "replaced as a whole");
    Ok(())
}

/// Four installs of other revisions at once, while somebody reads: every read sees whole revisions.
#[test]
fn installs_at_once_and_a_reader() -> Outcome {
    let folder = tempfile::tempdir()?;
    let store = folder.path();
    let digests = [Digest::of(b"a"), Digest::of(b"b")];
    let papers: Vec<_> = (1..=4)
        .map(|revision| signed(&digests, revision))
        .collect::<Result<_, _>>()?;
    std::thread::scope(|scope| {
        let writers: Vec<_> = papers
            .iter()
            .map(|(policy, bundle)| {
                scope.spawn(move || {
                    for profile in ["{}", "{ }", "{  }"] {
                        // the profile changes: the directory is exchanged each time
                        let profile = profile.as_bytes();
                        install(store, policy, bundle, profile)
                            .map_err(|error| error.to_string())?;
                    }
                    Ok::<_, String>(())
                })
            })
            .collect();
        while !writers.iter().all(|writer| writer.is_finished()) {
            let one = [digests[0]].into();
            for revision in revisions(store, &one)? {
                let bundle = read_bundle(store, &one, &revision.policy)?;
                assert!(bundle.is_some(), "revision {} is whole", revision.revision);
            }
            if let Some((_, profile)) = read_profile_newest(store, &one)? {
                assert!(profile.starts_with(b"{") && profile.ends_with(b"}"));
            }
        }
        for writer in writers {
            writer.join().map_err(|_| "panicked")??;
        }
        Ok::<_, Failure>(())
    })?;
    assert_eq!(numbers(store, &digests)?, [1, 2, 3, 4]);
    Ok(())
}

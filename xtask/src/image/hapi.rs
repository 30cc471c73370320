//! The target FHIR server: HAPI FHIR JPA on a JVM, `FROM scratch`.
//!
//! A jlink runtime, the libraries it is linked to, the released jars, our launcher, and a class data archive that halves the
//! start (figures in `targets/hapi/README.md`). The archive is what a run of the server leaves, so an image made anew has
//! another id; an image whose key is unchanged is used again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::json;

use super::{Image, Layer, MTIME, StartConfig, copy_libraries, fresh_folder, key, read, reuse};
use crate::command::{command, output, run, run_logged};
use crate::steps::{Step, Steps};

/// Changed when the way of assembling changes, so that older images are not used again.
const RECIPE: &str = "1";

/// Maven's own copy of the jars is resolved by this plugin, which is all that has to be downloaded besides them.
const COPY_JARS: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// What HAPI FHIR uses of the JDK, found by running it.
const MODULES: &str = "java.base,java.compiler,java.desktop,java.instrument,java.logging,java.management,java.naming,\
java.net.http,java.prefs,java.rmi,java.scripting,java.security.jgss,java.security.sasl,java.sql,java.sql.rowset,\
java.transaction.xa,java.xml,java.xml.crypto,jdk.crypto.ec,jdk.management,jdk.unsupported,jdk.xml.dom,jdk.zipfs";

/// Parts of `java.desktop` that a server never loads and that would bring X11, fonts and sound with them.
const NOT_NEEDED: &[&str] = &[
    "lib/jexec",
    "lib/libawt_xawt.so",
    "lib/libfontmanager.so",
    "lib/libjavajpeg.so",
    "lib/libjawt.so",
    "lib/libjsound.so",
    "lib/liblcms.so",
    "lib/libmlib_image.so",
    "lib/libsplashscreen.so",
];

/// Where the classes are looked for; the class archive is bound to it as a prefix.
pub(super) const CLASS_PATH: &str = "/app/app.jar";

const MAIN: &str = "dev.lazaret.target.FhirServer";

/// Quick to start rather than fastest in the long run, and steady: the second compiler's work would go on for minutes and
/// blur every comparison.
const JVM: [&str; 3] = [
    "-XX:SharedArchiveFile=/app/app.jsa",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
];

/// The image `lazaret/hapi:target`; made when it is not there or what goes into it has changed.
///
/// # Errors
/// When a program that makes it fails (Maven, javac, jlink, the server itself); the log's path is in the error.
pub fn hapi(steps: &Steps, workspace: &Path, target: &Path) -> anyhow::Result<Image> {
    let source = workspace.join("targets/hapi");
    let launcher = source.join("src/dev/lazaret/target/FhirServer.java");
    let logging = source.join("src/logback.xml");
    let java = java_home()?;
    let key = key([
        (
            "recipe",
            format!("{RECIPE} {COPY_JARS} {MODULES} {NOT_NEEDED:?} {JVM:?}").into_bytes(),
        ),
        ("pom", read(&source.join("pom.xml"))?),
        ("launcher", read(&launcher)?),
        ("logging", read(&logging)?),
        ("jdk", read(&java.join("release"))?),
        (
            "libc",
            output(&mut command("getconf", ["GNU_LIBC_VERSION"]))?.into_bytes(),
        ),
    ])?;
    let folder = target.join("images/hapi");
    if let Some(image) = reuse(steps, &folder, &key) {
        return Ok(image);
    }
    fresh_folder(&folder)?;
    let root = folder.join("root");
    let work = folder.join("work");
    let jars = root.join("app/lib");
    for made in [
        &jars,
        &work,
        &root.join("proc"),
        &root.join("dev"),
        &root.join("etc"),
        &root.join("sys"),
    ] {
        fs::create_dir_all(made)?;
    }
    for open in ["tmp", "data"] {
        fs::create_dir(root.join(open))?;
        fs::set_permissions(root.join(open), fs::Permissions::from_mode(0o1777))?;
    }
    fs::write(
        root.join("etc/passwd"),
        "fhir:x:10001:10001:FHIR server:/data:/nonexistent\n",
    )?;
    fs::write(root.join("etc/group"), "fhir:x:10001:\n")?;

    steps.step(
        "HAPI FHIR: released jars from Maven Central (219 MB at the first time)",
        |step| download(step, &source, &jars, &work.join("maven.log")),
    )?;
    steps.step("HAPI FHIR: launcher and Java runtime", |_| {
        fs::create_dir(work.join("classes"))?;
        fs::copy(&logging, work.join("classes/logback.xml"))?;
        compile(&java, &launcher, &jars, &work, &root.join("app/app.jar"))?;
        runtime(&java, &root)
    })?;
    steps.step("HAPI FHIR: class archive, from a run of the server", |_| {
        class_archive(&root, &work)
    })?;
    let image = steps.step("HAPI FHIR: image", |_| {
        let layer = Layer::pack(&root, &folder)?;
        Image::write(
            &folder,
            "lazaret/hapi:target",
            key,
            vec![layer],
            &start_config(),
        )
    })?;
    fs::remove_dir_all(&root)?;
    Ok(image)
}

/// How the server is started; the heap's size can be changed with `--env JDK_JAVA_OPTIONS=-Xmx…`.
pub(super) fn start_config() -> StartConfig {
    StartConfig {
        user: "10001:10001".into(),
        exposed_ports: BTreeMap::from([("8080/tcp".into(), json!({}))]),
        env: vec!["PATH=/jre/bin".into(), "JDK_JAVA_OPTIONS=-Xmx768m".into()],
        entrypoint: entrypoint(CLASS_PATH, MAIN),
        working_dir: "/".into(),
    }
}

/// The command line of a server with this class path.
pub(super) fn entrypoint(class_path: &str, main: &str) -> Vec<String> {
    ["/jre/bin/java"]
        .iter()
        .chain(&JVM)
        .chain(&["-cp", class_path, main])
        .map(|s| (*s).to_owned())
        .collect()
}

/// Debian's JDK 17, which need not be the default one.
pub(super) fn java_home() -> anyhow::Result<PathBuf> {
    let home = PathBuf::from("/usr/lib/jvm/java-17-openjdk-amd64");
    if !home.join("jmods/java.base.jmod").is_file() {
        bail!(
            "no JDK with jmods in {}; Debian's package is openjdk-17-jdk-headless",
            home.display()
        );
    }
    Ok(home)
}

fn download(step: &Step, source: &Path, jars: &Path, log: &Path) -> anyhow::Result<()> {
    let once = || {
        let mut maven = command("mvn", ["--batch-mode", "--no-transfer-progress", "--file"]);
        maven
            .arg(source.join("pom.xml"))
            .arg(COPY_JARS)
            .arg("-DincludeScope=runtime");
        maven.arg(format!("-DoutputDirectory={}", jars.display()));
        run_logged(&mut maven, log)
    };
    // 200 downloads: one that breaks off is likely enough, and Maven goes on where it was.
    once().or_else(|error| {
        step.line(format_args!("Maven failed, trying once more: {error:#}"));
        once()
    })
}

/// Compiles the launcher, beside what is in `classes` already, into a jar whose manifest names all other jars in order: with `lib/*` the order would be the
/// folder's, and the class archive would not fit.
fn compile(
    java: &Path,
    launcher: &Path,
    jars: &Path,
    work: &Path,
    jar: &Path,
) -> anyhow::Result<()> {
    let classes = work.join("classes");
    let mut javac = command(
        java.join("bin/javac"),
        ["-nowarn", "-encoding", "UTF-8", "-d"],
    );
    javac
        .arg(&classes)
        .arg("-cp")
        .arg(jars.join("*"))
        .arg(launcher);
    run(&mut javac)?;
    let mut names: Vec<String> = fs::read_dir(jars)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<anyhow::Result<_>>()?;
    names.sort();
    let manifest = work.join("MANIFEST.MF");
    fs::write(&manifest, manifest_of(&names))?;
    let mut pack = command(
        java.join("bin/jar"),
        ["--create", "--date=2001-09-09T01:46:40Z", "--manifest"],
    );
    pack.arg(&manifest)
        .arg("--file")
        .arg(jar)
        .arg("-C")
        .arg(&classes)
        .arg(".");
    run(&mut pack)
}

/// A line of a manifest holds at most 72 bytes; it goes on after a newline and a space (JAR file specification).
fn manifest_of(jars: &[String]) -> String {
    let mut line = "Class-Path:".to_owned();
    for jar in jars {
        line.push_str(" lib/");
        line.push_str(jar);
    }
    let mut text = format!("Manifest-Version: 1.0\nMain-Class: {MAIN}\n");
    let mut width = 0;
    for c in line.chars() {
        if width + c.len_utf8() > 72 {
            text.push_str("\n ");
            width = 1;
        }
        text.push(c);
        width += c.len_utf8();
    }
    text.push('\n');
    text
}

fn runtime(java: &Path, root: &Path) -> anyhow::Result<()> {
    let jre = root.join("jre");
    let mut jlink = command(java.join("bin/jlink"), ["--module-path"]);
    jlink.arg(java.join("jmods")).args([
        "--add-modules",
        MODULES,
        "--strip-debug",
        "--no-header-files",
    ]);
    jlink.args(["--no-man-pages", "--output"]).arg(&jre);
    run(&mut jlink)?;
    for part in NOT_NEEDED {
        // Debian's headless JDK may lack some of them.
        fs::remove_file(jre.join(part)).ok();
    }
    for tool in fs::read_dir(jre.join("bin"))? {
        let tool = tool?;
        if tool.file_name() != "java" {
            fs::remove_file(tool.path())?;
        }
    }
    let mut linked = vec![jre.join("bin/java"), jre.join("lib/jspawnhelper")];
    for folder in ["lib", "lib/server"] {
        for entry in fs::read_dir(jre.join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "so") {
                linked.push(path);
            }
        }
    }
    copy_libraries(&linked, root)
}

/// Runs the server once in a chroot with no network and lets the JVM keep the classes it loaded.
fn class_archive(root: &Path, work: &Path) -> anyhow::Result<()> {
    // The archive remembers the jars' times, so they get the ones they will have in the image.
    let mut touch = command("find", [root.as_os_str()]);
    run(touch.args([
        "-exec",
        "touch",
        "--no-dereference",
        "--date",
        MTIME,
        "{}",
        "+",
    ]))?;
    let dump = command_in(root, &["/jre/bin/java", "-Xshare:dump", "-XX:+UseSerialGC"]);
    run_logged(&mut { dump }, &work.join("base-archive.log"))?;
    let mut args = vec!["/jre/bin/java", "-XX:ArchiveClassesAtExit=/app/app.jsa"];
    args.extend(JVM.iter().skip(1));
    args.extend(["-cp", CLASS_PATH, MAIN]);
    let mut server = command_in(root, &args);
    run_logged(
        server.env("FHIR_STOP_WHEN_READY", "1"),
        &work.join("class-archive.log"),
    )?;
    for made in ["app/app.jsa", "jre/lib/server/classes.jsa"] {
        let path = root.join(made);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444))
            .with_context(|| format!("the JVM made no {}", path.display()))?;
    }
    for left in ["data", "tmp"] {
        for entry in fs::read_dir(root.join(left))? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?
            } else {
                fs::remove_file(path)?
            }
        }
    }
    Ok(())
}

/// A command in the image's files, in namespaces of its own that end with it.
fn command_in(root: &Path, args: &[&str]) -> std::process::Command {
    let script = "set -e; mount --bind /dev \"$1/dev\"; mount -t proc proc \"$1/proc\"; \
                  root=$1; shift; exec chroot \"$root\" \"$@\"";
    let mut unshare = command(
        "unshare",
        [
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--",
            "sh",
            "-c",
            script,
            "sh",
        ],
    );
    unshare
        .arg(root)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    unshare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_lines_are_folded() {
        let jars: Vec<String> = (0..20).map(|n| format!("some-library-{n}.jar")).collect();
        let text = manifest_of(&jars);
        assert!(text.lines().all(|line| line.len() <= 72), "{text}");
        let unfolded = text.replace("\n ", "");
        assert!(
            unfolded.contains(" lib/some-library-0.jar lib/some-library-1.jar "),
            "{unfolded}"
        );
        assert!(unfolded.ends_with("lib/some-library-19.jar\n"));
    }
}

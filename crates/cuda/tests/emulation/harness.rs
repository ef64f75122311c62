//! Is the harness any good? The same cases under AddressSanitizer and UndefinedBehaviorSanitizer, and with
//! kernels that were broken on purpose.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::kit_mutations::{KIT_FILES, KIT_MUTATIONS};
use crate::mutations::{MUTATIONS, Mutation};
use crate::support::emulator::{Build, LIBRARY_VARIABLE, build, crate_folder, emulator};

/// Several times what the cases take on a slow machine: a broken loop may never end.
const PATIENCE: Duration = Duration::from_secs(300);

/// Tests of this very binary on another build of the emulator.
fn tests_on(library: &Path, filters: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(filters)
        .args(["--test-threads", "2"])
        .env(LIBRARY_VARIABLE, library)
        .env("RUST_BACKTRACE", "0");
    command
}

/// Whether the tests pass in time.
fn passes(mut command: Command) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    false
}

#[test]
fn sanitizers_find_nothing() {
    if emulator().is_none() || std::env::var_os(LIBRARY_VARIABLE).is_some() {
        return;
    }
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];
    let library = match build(&crate_folder().join("kernels"), &flags, "sanitized") {
        Ok(library) => library,
        Err(why) => {
            eprintln!("SKIPPED: the compiler has no sanitizers: {why:?}");
            return;
        }
    };
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let runtime = Command::new(compiler).arg("-print-file-name=libasan.so").output().unwrap().stdout;
    let runtime = String::from_utf8(runtime).unwrap();
    // The runtime must come before the C library; the processes started here leak on purpose.
    let environment = [("LD_PRELOAD", runtime.trim()), ("ASAN_OPTIONS", "detect_leaks=0")];
    let filters =
        ["random_shapes", "recurrence", "any_element", "several_launches", "odd_sizes", "shape_and_cut"];
    let output = tests_on(&library, &filters).envs(environment).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("test result: ok. 13 passed"), "{text}");
}

/// A copy of the kernels with one place changed.
fn mutated(mutation: &Mutation, number: usize) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mutant-{number}"));
    fs::create_dir_all(&folder).unwrap();
    let mut changed = 0;
    for entry in fs::read_dir(crate_folder().join("kernels")).unwrap() {
        let path = entry.unwrap().path();
        let mut text = fs::read_to_string(&path).unwrap();
        if path.file_name().unwrap() == mutation.file {
            let places: Vec<usize> = text.match_indices(mutation.find).map(|(at, _)| at).collect();
            let at =
                *places.get(mutation.nth).unwrap_or_else(|| panic!("{}: its place is gone", mutation.name));
            text.replace_range(at..at + mutation.find.len(), mutation.replace);
            changed += 1;
        }
        fs::write(folder.join(path.file_name().unwrap()), text).unwrap();
    }
    assert_eq!(changed, 1, "{}: no such file", mutation.name);
    folder
}

#[test]
#[ignore = "takes minutes: compiles the kernels once per mutation"]
fn planted_bugs_are_caught() {
    let mut missed = Vec::new();
    // Part of a name, to plant only some.
    let wanted = std::env::var("SPIKENORM_MUTATION").unwrap_or_default();
    for (number, mutation) in MUTATIONS
        .iter()
        .chain(KIT_MUTATIONS)
        .enumerate()
        .filter(|(_, mutation)| mutation.name.contains(&wanted))
    {
        let library =
            match build(&mutated(mutation, number), &["-w", "-Wno-error"], &format!("mutant-{number}")) {
                Ok(library) => library,
                Err(Build::NoCompiler) => panic!("no C++ compiler"),
                Err(Build::Failed(message)) => panic!("{} does not compile: {message}", mutation.name),
            };
        let cases: &[&str] =
            if KIT_FILES.contains(&mutation.file) { &["kit_"] } else { &["norm::", "neu_norm::"] };
        let caught = !passes(tests_on(&library, cases));
        println!("{} {}", if caught { "caught" } else { "MISSED" }, mutation.name);
        if caught != mutation.caught {
            missed.push(mutation.name);
        }
        fs::remove_file(library).unwrap();
    }
    assert!(missed.is_empty(), "not as mutations.rs says: {missed:?}");
}

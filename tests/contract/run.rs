//! Processes: how they stop when they are told to. Each test is a program that runs as a process of its own, and what
//! its users see of it: signals go in, lines and an exit code come out.

use std::{
    env,
    fmt::Display,
    future::{Future, pending},
    io::{BufRead, BufReader, Read, Write, stdout},
    process::{Child, ChildStdout, Command, Stdio, exit},
    thread,
    time::Duration,
};

use futures::FutureExt;
use ringfence::{
    Process, RunReport, Scope, StopSignal, TaskGroup, root,
    supervise::{Child as Service, Supervisor},
    timeout, token,
};
use tokio::{task::yield_now, time::sleep};

use crate::support::{Drops, PATIENCE, Watchdog, current_thread, cut_at_every_await, multi_thread};

/// Says which of these tests is to be a program.
const PROGRAM: &str = "RINGFENCE_PROGRAM";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A line to who watches.
fn say(line: impl Display) {
    let mut out = stdout().lock();
    drop(writeln!(out, "> {line}"));
    drop(out.flush());
}

/// Times that no test waits for, unless it is about them.
fn process() -> Process {
    Process::new()
        .grace(Duration::from_secs(50))
        .bound(Duration::from_secs(50))
        .nag_every(Duration::from_secs(50))
}

/// A program under test.
struct Program {
    child: Child,
    out: BufReader<ChildStdout>,
}

/// In the process that is to be the program of `test`: runs it, and does not come back. In the other one: starts that process.
fn program<F, T>(test: &str, main: impl FnOnce() -> F) -> (Watchdog, Program)
where
    F: Future<Output = RunReport<T, String>>,
{
    if env::var(PROGRAM).as_deref() == Ok(test) {
        let runtime = if env::var("RINGFENCE_THREADS").is_ok() {
            multi_thread(2)
        } else {
            current_thread()
        };
        let report = runtime.block_on(Box::pin(main()));
        say(format!("{}, {} finished", report.code(), report.finished()));
        report
            .forced()
            .for_each(|task| say(format!("forced {:?}", task.name())));
        let code = report.code();
        let _code = std::process::Termination::report(report);
        exit(i32::from(code));
    }
    let watchdog = Watchdog::start("a program", PATIENCE);
    let mut child = Command::new(env::current_exe().expect("this binary"))
        .args(["--exact", &format!("run::{test}"), "--nocapture"])
        .env(PROGRAM, test)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let out = BufReader::new(child.stdout.take().expect("its lines"));
    (watchdog, Program { child, out })
}

impl Program {
    /// The next line that it says.
    fn line(&mut self) -> String {
        let mut line = String::new();
        while self.out.read_line(&mut line).expect("its lines") > 0 {
            if let Some(said) = line.strip_prefix("> ") {
                return said.trim().to_owned();
            }
            line.clear();
        }
        "(no more)".to_owned()
    }

    fn expect(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Its exit code, and what it told standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let mut told = String::new();
        let mut err = self.child.stderr.take().expect("its other lines");
        err.read_to_string(&mut told).expect("text");
        let status = self.child.wait().expect("it ends");
        (status.code(), told)
    }
}

type Group = TaskGroup<String>;

#[test]
fn it_ends_when_all_is_done_with_the_value_of_the_body() {
    let (_watchdog, mut program) = program(
        "it_ends_when_all_is_done_with_the_value_of_the_body",
        || async {
            let short = ringfence::run(async |_: &Group| Ok(8)).await;
            assert_eq!(short.into_result().ok(), Some(Some(8)));
            let short = ringfence::run(async |_: &Group| Err::<(), _>("no".to_owned())).await;
            assert!(short.into_result().is_err());
            let report = process()
                .run(async |group: &Group| {
                    group.spawn(async { say("a child") });
                    Ok(7)
                })
                .await;
            assert_eq!(report.signal(), None);
            say(format!("{report:?}"));
            report
        },
    );
    program.expect("a child");
    program.expect("RunReport { value: Some(7), signal: None, finished: 0, errors: [] }");
    program.expect("0, 0 finished");
    assert_eq!(program.end(), (Some(0), String::new()));
}

#[test]
fn a_signal_stops_it_in_order_and_it_exits_with_zero() {
    for name in ["TERM", "INT"] {
        let (_watchdog, mut program) = program(
            "a_signal_stops_it_in_order_and_it_exits_with_zero",
            || async {
                process()
                    .name("app")
                    .run(async |group: &Group| {
                        group.spawn(async {
                            token().cancelled().await;
                            yield_now().await;
                            say(token().reason().expect("a reason"));
                        });
                        say("ready");
                        token().cancelled().await;
                        assert!(group.try_spawn(async {}).is_err());
                        Ok(())
                    })
                    .inspect(|report| say(report.signal().expect("a signal")))
                    .await
            },
        );
        program.expect("ready");
        program.signal(name);
        program.expect(&format!("on request: SIG{name}"));
        program.expect(&format!("SIG{name}"));
        program.expect("0, 1 finished");
        let told = format!("ringfence: stopped by SIG{name}: 1 finished, 0 forced\n");
        assert_eq!(program.end(), (Some(0), told));
    }
}

#[test]
fn who_outlasts_the_grace_is_forced_and_named_and_the_exit_code_tells() {
    let (_watchdog, mut program) = program(
        "who_outlasts_the_grace_is_forced_and_named_and_the_exit_code_tells",
        || async {
            process()
                .grace(ms(500))
                .run(async |group: &Group| {
                    group.spawn(async { token().cancelled().await });
                    group.named("deaf").spawn(pending::<()>());
                    yield_now().await;
                    say("ready");
                    Ok(())
                })
                .await
        },
    );
    program.expect("ready");
    program.signal("TERM");
    program.expect("143, 1 finished");
    program.expect("forced Some(\"deaf\")");
    let (code, told) = program.end();
    assert_eq!(code, Some(143));
    assert!(told.contains("stopped by SIGTERM: 1 finished, 1 forced\n  task `deaf` spawned at"));
}

#[test]
fn a_second_signal_forces() {
    let (_watchdog, mut program) = program("a_second_signal_forces", || async {
        process()
            .run(async |group: &Group| {
                group.named("deaf").spawn(async {
                    token().cancelled().await;
                    say("heard");
                    pending::<()>().await;
                });
                yield_now().await;
                say("ready");
                Ok(())
            })
            .await
    });
    program.expect("ready");
    program.signal("TERM");
    program.expect("heard");
    program.signal("INT");
    program.expect("143, 0 finished");
    assert_eq!(program.end().0, Some(143), "that of the first one");
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread that hangs is what is tested"
)]
fn asleep(millis: u64) {
    thread::sleep(ms(millis));
}

/// Blocks its thread, and says so.
fn block(says: &'static str) {
    say(says);
    asleep(300_000);
}

#[test]
fn after_the_bound_it_exits_although_a_thread_blocks_and_names_it() {
    let (_watchdog, mut program) = program(
        "after_the_bound_it_exits_although_a_thread_blocks_and_names_it",
        || async {
            process()
                .grace(ms(50))
                .bound(ms(50))
                .name("app")
                .run(async |group: &Group| {
                    group.spawn_blocking(|| block("ready"));
                    Ok(())
                })
                .await
        },
    );
    program.expect("ready");
    program.signal("TERM");
    let (code, told) = program.end();
    assert_eq!(code, Some(143));
    assert!(
        told.starts_with("ringfence: SIGTERM: gave up on 1 after"),
        "{told}"
    );
}

#[test]
fn a_runtime_that_is_blocked_hears_and_ends_all_the_same() {
    let (_watchdog, mut program) = program(
        "a_runtime_that_is_blocked_hears_and_ends_all_the_same",
        || async {
            process()
                .grace(ms(50))
                .bound(ms(50))
                .nag_every(ms(40))
                .run(async |group: &Group| {
                    // The only thread there is.
                    group.named("busy").spawn(async { block("ready") });
                    Ok(())
                })
                .await
        },
    );
    program.expect("ready");
    program.signal("TERM");
    let (code, told) = program.end();
    assert_eq!(code, Some(143));
    assert!(
        told.starts_with("ringfence: SIGTERM: still waiting for 1"),
        "{told}"
    );
    assert!(
        told.contains("gave up on 1") && told.contains("task `busy`"),
        "{told}"
    );
}

#[test]
fn a_third_signal_exits_at_once() {
    let (_watchdog, mut program) = program("a_third_signal_exits_at_once", || async {
        process()
            .run(async |group: &Group| {
                group.spawn_blocking(|| block("ready"));
                group.spawn(async {
                    token().cancelled().await;
                    say("heard");
                    struct Forced;
                    impl Drop for Forced {
                        fn drop(&mut self) {
                            say("forced");
                        }
                    }
                    let _forced = Forced;
                    pending::<()>().await;
                });
                Ok(())
            })
            .await
    });
    program.expect("ready");
    program.signal("INT");
    program.expect("heard");
    program.signal("INT");
    program.expect("forced");
    program.signal("INT");
    assert_eq!(program.end().0, Some(130));
}

#[test]
fn it_nags_with_names_while_it_waits() {
    let (_watchdog, mut program) = program("it_nags_with_names_while_it_waits", || async {
        process()
            .nag_every(ms(20))
            .on_nag(|nag| say(nag))
            .name("app")
            .run(async |group: &Group| {
                group.named("slow").spawn(async {
                    token().cancelled().await;
                    sleep(ms(500)).await;
                });
                yield_now().await;
                say("ready");
                token().cancelled().await;
                Ok(())
            })
            .await
    });
    program.expect("ready");
    program.signal("TERM");
    let line = program.line();
    assert!(
        line.starts_with("SIGTERM: still waiting for 1 after 0."),
        "{line}"
    );
    let mut lines = String::new();
    program.out.read_line(&mut lines).expect("the names");
    assert!(
        lines.contains("task `app/slow` spawned at tests"),
        "{lines}"
    );
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn it_nags_about_the_phases_that_were_told_to_stop_and_no_others() {
    let (_watchdog, mut program) = program(
        "it_nags_about_the_phases_that_were_told_to_stop_and_no_others",
        || async {
            process()
                .nag_every(ms(20))
                .on_nag(|nag| say(nag.to_string().replace('\n', ";")))
                .phases(["work", "keep"])
                .run(async |[work, keep]| {
                    for (spawner, lasts) in [(work, 500), (keep, 0)] {
                        spawner.spawn(async move {
                            token().cancelled().await;
                            sleep(ms(lasts)).await;
                            Ok::<(), String>(())
                        });
                    }
                    yield_now().await;
                    say("ready");
                    Ok(())
                })
                .await
        },
    );
    program.expect("ready");
    program.signal("TERM");
    let line = program.line();
    assert!(
        line.starts_with("SIGTERM: still waiting for 1 after 0."),
        "{line}"
    );
    assert!(line.contains(", in phase `work`;  task "), "{line}");
    assert!(!line.contains("keep"), "{line}");
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn a_failure_stops_it_in_order_and_it_exits_with_one() {
    let (_watchdog, mut program) = program(
        "a_failure_stops_it_in_order_and_it_exits_with_one",
        || async {
            process()
                .run(async |group: &Group| {
                    group.spawn(async {
                        token().cancelled().await;
                        say("goodbye");
                    });
                    yield_now().await;
                    group.spawn(async { Err::<(), _>("disk full".to_owned()) });
                    token().cancelled().await;
                    Ok(())
                })
                .await
        },
    );
    program.expect("goodbye");
    assert!(program.line().starts_with("1, "));
    let (code, told) = program.end();
    assert_eq!(code, Some(1));
    assert!(
        told.contains("ended") && told.contains(": disk full"),
        "{told}"
    );
}

#[test]
fn a_panic_stops_it_in_order_and_it_exits_as_a_panic_does() {
    let (_watchdog, mut program) = program(
        "a_panic_stops_it_in_order_and_it_exits_as_a_panic_does",
        || async {
            process()
                .run(async |group: &Group| {
                    group.spawn(async {
                        token().cancelled().await;
                        say("goodbye");
                    });
                    yield_now().await;
                    panic!("in the body")
                })
                .await as RunReport<(), String>
        },
    );
    program.expect("goodbye");
    assert!(program.line().starts_with("101, "));
    let (code, told) = program.end();
    assert_eq!(code, Some(101));
    assert!(told.contains("the body panicked: in the body"), "{told}");
}

#[test]
fn a_failure_with_a_deaf_child_is_forced_after_the_grace() {
    let (_watchdog, mut program) = program(
        "a_failure_with_a_deaf_child_is_forced_after_the_grace",
        || async {
            process()
                .grace(ms(50))
                .run(async |group: &Group| {
                    group.named("deaf").spawn(pending::<()>());
                    yield_now().await;
                    Err::<(), _>("no".to_owned())
                })
                .await
        },
    );
    assert!(program.line().starts_with("1, "));
    program.expect("forced Some(\"deaf\")");
    assert_eq!(program.end().0, Some(1), "there was no signal");
}

#[test]
fn phases_stop_in_their_order() {
    let (_watchdog, mut program) = program("phases_stop_in_their_order", || async {
        process()
            .phases(["listen", "work", "flush"])
            .run(async |[listen, work, flush]| {
                for (name, spawner, lasts) in [
                    ("flush", flush, 0),
                    ("work", work, 30),
                    ("listen", listen, 60),
                ] {
                    spawner.spawn(async move {
                        token().cancelled().await;
                        sleep(ms(lasts)).await;
                        say(name);
                        Ok::<(), String>(())
                    });
                }
                yield_now().await;
                say("ready");
                token().cancelled().await;
                say("the body");
                Ok(())
            })
            .await
    });
    program.expect("ready");
    program.signal("TERM");
    for line in ["the body", "listen", "work", "flush", "0, 3 finished"] {
        program.expect(line);
    }
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn a_phase_that_hangs_is_forced_and_the_next_ones_have_their_time() {
    let (_watchdog, mut program) = program(
        "a_phase_that_hangs_is_forced_and_the_next_ones_have_their_time",
        || async {
            process()
                .grace(ms(1000))
                .phases(["work", "flush"])
                .run(async |[work, flush]| {
                    work.spawn(async { pending::<Result<(), String>>().await });
                    flush.spawn(async {
                        token().cancelled().await;
                        sleep(ms(20)).await;
                        say("flushed");
                        Ok(())
                    });
                    yield_now().await;
                    say("ready");
                    Ok(())
                })
                .await
        },
    );
    program.expect("ready");
    program.signal("TERM");
    program.expect("flushed");
    program.expect("143, 1 finished");
    assert_eq!(program.end().0, Some(143));
}

#[test]
fn a_failure_in_one_phase_stops_all_in_their_order() {
    let (_watchdog, mut program) = program(
        "a_failure_in_one_phase_stops_all_in_their_order",
        || async {
            process()
                .phases(["listen", "work", "flush"])
                .run(async |[listen, work, flush]| {
                    for (name, spawner) in [("flush", flush), ("listen", listen)] {
                        spawner.spawn(async move {
                            token().cancelled().await;
                            say(name);
                            Ok(())
                        });
                    }
                    yield_now().await;
                    work.spawn(async { Err::<(), _>("no".to_owned()) });
                    Ok(())
                })
                .await
        },
    );
    program.expect("listen");
    program.expect("flush");
    assert!(program.line().starts_with("1, "));
    assert_eq!(program.end().0, Some(1));
}

#[test]
fn phases_that_are_done_end_by_themselves_first_ones_first() {
    let (_watchdog, mut program) = program(
        "phases_that_are_done_end_by_themselves_first_ones_first",
        || async {
            process()
                .phases(["work", "flush"])
                .run(async |[work, flush]| {
                    work.spawn(async move {
                        sleep(ms(20)).await;
                        // Open as long as anybody before it may need it.
                        let written = flush.spawn(async { Ok("written") });
                        say(written.await.completed().unwrap_or("refused"));
                        Ok::<(), String>(())
                    });
                    Ok(7)
                })
                .await
        },
    );
    program.expect("written");
    program.expect("0, 0 finished");
    assert_eq!(program.end(), (Some(0), String::new()));
}

#[test]
fn a_signal_while_it_starts_is_not_lost() {
    let (_watchdog, mut program) = program("a_signal_while_it_starts_is_not_lost", || async {
        process()
            .run(async |_: &Group| {
                say("ready");
                // Not a task yet, and nothing that waits: the first await is after the signal.
                asleep(200);
                token().cancelled().await;
                Ok(())
            })
            .await
    });
    program.expect("ready");
    program.signal("TERM");
    program.expect("0, 0 finished");
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn a_signal_after_it_is_over_ends_the_process() {
    let (_watchdog, mut program) =
        program("a_signal_after_it_is_over_ends_the_process", || async {
            let report = process().run(async |_: &Group| Ok(())).await;
            say(format!("over with {}", report.code()));
            asleep(300_000);
            report
        });
    program.expect("over with 0");
    program.signal("TERM");
    assert_eq!(program.end().0, Some(143));
}

#[test]
fn nobody_who_reads_its_lines_is_no_reason_to_panic() {
    let (_watchdog, mut program) = program(
        "nobody_who_reads_its_lines_is_no_reason_to_panic",
        || async {
            process()
                .nag_every(ms(10))
                .grace(ms(80))
                .run(async |group: &Group| {
                    group.named("deaf").spawn(pending::<()>());
                    yield_now().await;
                    say("ready");
                    Ok(())
                })
                .await
        },
    );
    program.expect("ready");
    drop(program.child.stderr.take());
    program.signal("TERM");
    program.expect("143, 0 finished");
    assert_eq!(program.child.wait().expect("it ends").code(), Some(143));
}

#[test]
fn a_supervisor_in_it_stops_in_its_own_order() {
    let (_watchdog, mut program) = program("a_supervisor_in_it_stops_in_its_own_order", || async {
        process()
            .run(async |group: &Group| {
                let service = |name: &'static str, lasts| {
                    Service::permanent(name, move |_| async move {
                        token().cancelled().await;
                        sleep(ms(lasts)).await;
                        say(name);
                    })
                };
                let mut supervisor = Supervisor::new().child(service("database", 0));
                let last = supervisor.add(service("server", 30));
                group.spawn(async {
                    let ended = supervisor.run().await;
                    ended.map_err(|error| error.to_string())
                });
                assert!(last.ready().await);
                say("ready");
                Ok(())
            })
            .await
    });
    program.expect("ready");
    program.signal("TERM");
    program.expect("server");
    program.expect("database");
    program.expect("0, 1 finished");
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn a_hook_that_panics_does_not_keep_it_from_ending() {
    let (_watchdog, mut program) = program(
        "a_hook_that_panics_does_not_keep_it_from_ending",
        || async {
            process()
                .grace(ms(50))
                .bound(ms(50))
                .nag_every(ms(20))
                .on_nag(|_| panic!("in the hook"))
                .run(async |group: &Group| {
                    group.spawn_blocking(|| block("ready"));
                    Ok(())
                })
                .await
        },
    );
    program.expect("ready");
    program.signal("TERM");
    assert_eq!(program.end().0, Some(143));
}

#[test]
fn a_hook_that_blocks_does_not_keep_it_from_ending() {
    let (_watchdog, mut program) = program(
        "a_hook_that_blocks_does_not_keep_it_from_ending",
        || async {
            process()
                .grace(ms(50))
                .bound(ms(50))
                .nag_every(ms(20))
                .on_nag(|_| block("in the hook"))
                .run(async |group: &Group| {
                    group.spawn_blocking(|| block("ready"));
                    Ok(())
                })
                .await
        },
    );
    program.expect("ready");
    program.signal("TERM");
    program.expect("in the hook");
    assert_eq!(program.end().0, Some(143));
}

#[test]
fn dropped_it_cancels_its_children_and_hears_no_more() {
    let (_watchdog, mut program) = program(
        "dropped_it_cancels_its_children_and_hears_no_more",
        || async {
            let gone = Drops::new();
            let run = process().run(async |group: &Group| {
                let guard = gone.guard();
                group.spawn(async move {
                    let _guard = guard;
                    pending::<()>().await;
                });
                pending::<Result<(), String>>().await
            });
            assert!(timeout(ms(30), run).await.is_err());
            root().wait(ms(5000)).await.expect("they are gone");
            say(format!("{} of {} alive", gone.alive(), gone.made()));
            // What the watch of the first one hears is none of its business any more.
            process()
                .run(async |_: &Group| {
                    say("ready");
                    token().cancelled().await;
                    sleep(ms(50)).await;
                    Ok(())
                })
                .await
        },
    );
    program.expect("0 of 1 alive");
    program.expect("ready");
    program.signal("TERM");
    program.expect("0, 0 finished");
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn wherever_it_is_cut_it_leaves_nothing_and_is_run_again() {
    let (_watchdog, mut program) = program(
        "wherever_it_is_cut_it_leaves_nothing_and_is_run_again",
        || async {
            let gone = Drops::new();
            let run = |gone: &Drops| {
                let (waits, serves) = (gone.guard(), gone.guard());
                process()
                    .phases(["serve", "flush"])
                    .run(async move |[serve, flush]| {
                        serve.spawn(async move {
                            let _serves = serves;
                            yield_now().await;
                            Ok::<(), String>(())
                        });
                        flush.spawn_background(async move {
                            let _waits = waits;
                            token().cancelled().await;
                        });
                        yield_now().await;
                        sleep(ms(1)).await;
                        Ok(())
                    })
            };
            let cuts = cut_at_every_await(
                || run(&gone),
                async |cut| {
                    root().wait(ms(5000)).await.expect("they are gone");
                    assert_eq!(gone.alive(), 0, "cut {cut}");
                },
            )
            .await;
            say(format!("more than 3 cuts: {}", cuts > 3));
            run(&gone).await
        },
    );
    program.expect("more than 3 cuts: true");
    program.expect("0, 0 finished");
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn exit_codes_of_signals_are_those_of_a_shell() {
    assert_eq!(
        (StopSignal::Interrupt.code(), StopSignal::Terminate.code()),
        (130, 143)
    );
    assert_eq!(StopSignal::Terminate.to_string(), "SIGTERM");
}

#[test]
fn each_setting_leaves_the_others_as_they_are() {
    let process = Process::new().name("app").grace(ms(1)).bound(ms(2));
    let shown = format!("{:?}", process.nag_every(ms(3)));
    for setting in [
        "name: Some(\"app\")",
        "grace: 1ms",
        "bound: 2ms",
        "nag: 3ms",
    ] {
        assert!(shown.contains(setting), "{shown}");
    }
}

#[test]
fn phases_are_inside_of_its_name() {
    let (_watchdog, mut program) = program("phases_are_inside_of_its_name", || async {
        process()
            .name("chat")
            .phases(["listen", "keep"])
            .run(async |[listen, _]| {
                listen.spawn(async { token().cancelled().await });
                yield_now().await;
                let seen = ringfence::snapshot().within("chat");
                let paths = seen.groups().iter().filter_map(|it| it.path.as_deref());
                say(paths.collect::<Vec<_>>().join(" "));
                listen.cancel();
                Ok::<(), String>(())
            })
            .await
    });
    program.expect("chat/listen chat/keep chat");
    drop(program.end());
}

#[test]
fn who_finished_is_counted_whoever_else_had_to_be_forced() {
    // The body is no child; nor are those of a scope inside, or one that came when it was stopping already.
    let (_watchdog, mut program) = program(
        "who_finished_is_counted_whoever_else_had_to_be_forced",
        || async {
            process()
                .grace(ms(500))
                .phases(["work", "keep"])
                .run(async |[work, keep]| {
                    work.spawn(async move {
                        token().cancelled().await;
                        drop(keep.spawn(pending::<()>()));
                    });
                    work.spawn(async {
                        let inner = ringfence::scope(async |group: &Group| {
                            group.spawn(pending::<()>());
                            group.spawn(pending::<()>());
                            Ok(())
                        });
                        drop(inner.await);
                    });
                    work.spawn(async { token().cancelled().await });
                    yield_now().await;
                    yield_now().await;
                    say("ready");
                    pending::<Result<(), String>>().await
                })
                .await
        },
    );
    program.expect("ready");
    program.signal("TERM");
    program.expect("143, 2 finished");
    drop(program.end());
}

#[test]
fn a_nag_counts_whom_it_names() {
    let (_watchdog, mut program) = program("a_nag_counts_whom_it_names", || async {
        process()
            .nag_every(ms(20))
            .on_nag(|nag| say(nag.to_string().replace('\n', ";")))
            .run(async |group: &Group| {
                group.named("outer").spawn(async {
                    let inner = Scope::new().grace(ms(300)).run(async |group: &Group| {
                        group.named("inner").spawn(pending::<()>());
                        Ok(())
                    });
                    drop(inner.await);
                });
                yield_now().await;
                say("ready");
                Ok(())
            })
            .await
    });
    program.expect("ready");
    program.signal("TERM");
    let line = program.line();
    assert!(line.contains("still waiting for 2 after"), "{line}");
    assert_eq!(line.matches("task `").count(), 2, "{line}");
    program.signal("TERM");
    drop(program.end());
}

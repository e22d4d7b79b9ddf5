//! What a sampled stack was doing: one category for every stack, found by the rules of one table.
//!
//! A stack is read from its innermost frame outwards; the first frame that a rule names decides, and within a frame the
//! first rule. A frame that no rule names says nothing of its own (the scheduler, a lock of the kernel, field
//! arithmetic, an iterator): whoever called it decides. What nobody decides is [`REST`]. Where the kernel was running,
//! only a category of the kernel can be the answer, however the program came there.

use super::perf::Frame;

/// What no rule names.
pub(crate) const REST: &str = "the rest";

/// One row: what a stack is doing whose innermost known frame has one of the names that follow, with spaces between.
///
/// A name with `::` is a path that stands anywhere within a frame's name, since Rust writes impls as `<a::B as c::D>::e`.
/// One that ends with `*` is how the name of a function in C begins, any other is the whole name; both are compared
/// without what [`plain`] takes away.
struct Rule(&'static str, &'static str);

/// Begins the categories in which the kernel works for the program.
const KERNEL: &str = "kernel: ";

/// The rules. A new category is a new row. Where two rows name the same frame, the earlier one counts.
const RULES: &[Rule] = &[
    // The kernel. Libc's wrappers stand here too: on the way back from a call the kernel's own name is gone already.
    Rule("kernel: syncs", "sys_fsync sys_fdatasync sys_sync* fsync fdatasync"),
    Rule(
        "kernel: sockets",
        "sys_recv* sys_send* sys_epoll* sys_accept* sys_shutdown sys_socket* sys_connect sys_setsockopt
         sys_getsockopt sock_write_iter sock_read_iter recv send epoll_wait epoll_ctl accept4 sendmsg recvmsg
         shutdown connect setsockopt",
    ),
    // The generic `syscall` of libc is how Rust's standard library reaches the futex; an eventfd wakes the poll.
    Rule(
        "kernel: waking and sleeping threads",
        "sys_futex* syscall eventfd_write eventfd_read sys_sched_yield sched_yield sys_nanosleep
         sys_clock_nanosleep sys_clone* sys_exit ret_from_fork* pthread_cond_* pthread_mutex_* lll_lock*",
    ),
    // Making and finding inodes, apart from the octets: ext4 searches long where many files were deleted before.
    Rule(
        "kernel: opening, naming, closing files",
        "sys_open* sys_rename* sys_close* sys_stat* sys_newfstat* sys_lstat* sys_unlink* sys_link* sys_mkdir*
         sys_fchmod* sys_flock sys_fcntl task_work_run open open64 openat* rename* close statx fstat* unlink* linkat
         mkdir",
    ),
    Rule(
        "kernel: writing files",
        "sys_write* sys_pwrite* sys_fallocate sys_ftruncate write pwrite* writev fallocate* ftruncate*",
    ),
    Rule(
        "kernel: reading files",
        "sys_read* sys_pread* sys_getdents* sys_lseek sys_fadvise* read pread* getdents* lseek*",
    ),
    Rule(
        "kernel: page faults and mappings",
        "asm_exc_page_fault exc_page_fault sys_mmap* sys_munmap sys_madvise sys_brk sys_mprotect sys_mremap mmap*
         munmap madvise brk sbrk mprotect mremap",
    ),
    Rule("kernel: random numbers", "sys_getrandom getrandom"),
    Rule("kernel: starting and ending", "sys_execve* sys_exit_group exit_group"),
    Rule("kernel: interrupts", "asm_common_interrupt asm_sysvec_* asm_exc_*"),
    // Memory: named before its users, since they are many and it is the same work for all of them.
    Rule(
        "memory and copies",
        "malloc* calloc realloc* free cfree memalign posix_memalign aligned_alloc int_malloc int_free*
         int_realloc int_memalign unlink_chunk sysmalloc* systrim* tcache_* mid_memalign memmove* memcpy* memset*
         memcmp* bcmp* explicit_bzero* alloc::raw_vec:: __rustc:: zeroize:: postkeep_archiver::octets::",
    ),
    // Digests, keys, seals.
    Rule("SHA-256", "sha2:: postkeep_shared::mail::digest::"),
    Rule("BLAKE3", "blake3:: blake3_*"),
    Rule("X25519", "x25519_dalek:: curve25519_dalek::montgomery:: age::native::x25519::"),
    Rule("Ed25519", "ed25519_dalek::"),
    Rule("ChaCha20-Poly1305", "chacha20:: poly1305:: chacha20poly1305:: age::primitives:: postkeep_shared::crypt::"),
    Rule("age: the file's header", "age:: age_core:: cookie_factory::"),
    Rule("TLS", "rustls:: tokio_rustls:: aws_lc*"),
    Rule("zstd", "ZSTD_* HUF_* FSE_* HIST_* XXH* zstd:: zstd_safe::"),
    // What stands in a report.
    Rule("JSON", "serde_json:: serde_core:: serde:: postkeep_archiver::store::recipe:: itoa:: zmij::"),
    Rule("base64", "postkeep_archiver::store::base64::"),
    Rule("line ends and dots", "postkeep_shared::wire::dots:: postkeep_shared::wire::input::"),
    Rule(
        "journal and parts",
        "postkeep_archiver::journal:: postkeep_archiver::store::split:: postkeep_archiver::store::header::
         postkeep_archiver::collect::examine:: postkeep_archiver::filing:: mail_parser:: encoding_rs::",
    ),
    Rule(
        "receipts and ledgers of the gateway",
        "postkeep_archiver::collect::judge:: postkeep_archiver::collect::ledger::
         postkeep_archiver::collect::chain:: postkeep_archiver::collect::collected::",
    ),
    // The store.
    Rule(
        "catalog",
        "fjall:: lsm_tree:: crossbeam_skiplist:: byteview:: quick_cache:: sfa::
         postkeep_archiver::store::catalog::",
    ),
    Rule("index of the store", "postkeep_archiver::store::index::"),
    Rule(
        "packs and records",
        "postkeep_archiver::store::format:: postkeep_archiver::store::packs:: postkeep_archiver::store::records::
         postkeep_archiver::store::record_file::
         postkeep_archiver::store::appender:: postkeep_archiver::store::worker:: postkeep_archiver::store::scan::
         postkeep_archiver::store::write:: postkeep_archiver::store::log:: fastcdc::",
    ),
    Rule("reading back", "postkeep_archiver::store::read:: postkeep_archiver::store::read_back::"),
    Rule(
        "POP3 lines",
        "postkeep_shared::pop3:: postkeep_archiver::collect::machine:: postkeep_archiver::collect::session::",
    ),
    // The gateway's way to a 250.
    Rule("the log line", "tracing:: tracing_core:: tracing_subscriber:: postkeep_shared::run::telemetry::"),
    Rule("sealing: own code", "postkeep_gateway::spool::writer::"),
    Rule(
        "committer: ledger, index, names",
        "postkeep_gateway::ledger:: postkeep_gateway::spool:: postkeep_gateway::mailbox::",
    ),
    Rule("sessions", "postkeep_gateway::smtp:: postkeep_gateway::pop3:: postkeep_gateway::sources:: smtp_proto::"),
    Rule("the round around it", "postkeep_archiver::"),
    Rule("disk: own code", "postkeep_shared::disk::"),
    Rule("tokio", "tokio:: mio:: std::sync:: std::sys::sync::"),
];

/// Frames of the runtime below everything that runs on it: theirs is only what they do themselves.
const CARRIERS: &str = "tokio::runtime::task::core:: tokio::runtime::task::harness:: tokio::runtime::task::raw::
    tokio::runtime::blocking::task:: tokio::runtime::blocking::pool::Inner:: tokio::runtime::context::
    tokio::runtime::scheduler::multi_thread::worker::Context::run tokio::runtime::park::CachedParkThread::block_on";

/// The category of a stack, innermost frame first.
pub(crate) fn category(stack: &[Frame]) -> &'static str {
    let kernel = stack.first().is_some_and(|frame| frame.kernel);
    let known = |row: &str, name: &str| row.split_whitespace().any(|known| names(known, name));
    let rule = stack.iter().enumerate().find_map(|(depth, frame)| {
        let name = plain(&frame.name);
        if depth > 0 && known(CARRIERS, name) {
            return None;
        }
        RULES.iter().find(|rule| (in_kernel(rule.0) || !kernel) && known(rule.1, name))
    });
    rule.map_or(REST, |rule| rule.0)
}

/// Whether in this category the kernel works for the program.
pub(crate) fn in_kernel(category: &str) -> bool {
    category.starts_with(KERNEL)
}

fn names(known: &str, name: &str) -> bool {
    if known.contains("::") {
        // `age::` is a crate, in `message::` it is none.
        let within = |at: usize| name[..at].ends_with(|before: char| before.is_alphanumeric() || "_:".contains(before));
        return name.match_indices(known).any(|(at, _)| !within(at));
    }
    match known.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == known,
    }
}

/// A function's name in C without what says nothing here: underscores and libc's prefixes before it, the architecture of
/// a system call, what the compiler appends to parts and copies, and versions of symbols. A path of Rust stays.
fn plain(name: &str) -> &str {
    if name.contains("::") {
        return name;
    }
    let name = name.split(['.', '@']).next().unwrap_or_default();
    let name = name.strip_prefix("__GI_").unwrap_or(name).trim_start_matches('_');
    let name = name.strip_prefix("libc_").unwrap_or(name);
    ["x64_", "arm64_", "ia32_", "se_", "do_"]
        .iter()
        .filter_map(|architecture| name.strip_prefix(architecture))
        .find(|name| name.starts_with("sys_"))
        .unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::perf;

    /// Stacks as `perf script` writes them, each with what it was doing.
    const RECORDED: &[(&str, &str)] = &[
        (
            "kernel: syncs",
            "tokio-rt-worker 14987 \n\
             \tffffffff81ac3110 iowrite16\n\tffffffff81d38a2c vp_notify\n\tffffffff816ab8d4 blkdev_issue_flush\n\
             \tffffffff8142a1f4 ext4_sync_file\n\tffffffff813a6d8e do_fsync\n\tffffffff813a6e53 __x64_sys_fdatasync\n\
             \tffffffff81f61b6c do_syscall_64\n\tffffffff82000130 entry_SYSCALL_64_after_hwframe\n\
             \t          110d3a fdatasync\n\t          433afe postkeep_gateway::ledger::append::Ledger::sync\n\n",
        ),
        // The call is over, its own name gone; a thread that was woken takes the processor.
        (
            "kernel: waking and sleeping threads",
            "tokio-rt-worker 14987 \n\
             \tffffffff8111d0a5 finish_task_switch.isra.0\n\tffffffff81f66c1a __schedule\n\tffffffff81f670f7 schedule\n\
             \tffffffff811b8a2d exit_to_user_mode_loop\n\tffffffff81f61b6c do_syscall_64\n\
             \tffffffff82000130 entry_SYSCALL_64_after_hwframe\n\t          11a7d9 syscall\n\
             \t          96b0c5 tokio::runtime::blocking::pool::Spawner::spawn_task\n\tffffffffffffffff [unknown]\n\n",
        ),
        (
            "kernel: page faults and mappings",
            "packs 15301 \n\
             \tffffffff81f58d17 clear_page_erms\n\tffffffff81313f3a do_anonymous_page\n\tffffffff81f64e9b exc_page_fault\n\
             \tffffffff82000b82 asm_exc_page_fault\n\t          16d90d __memset_avx512_unaligned_erms\n\
             \t          c1e8c2 ZSTD_resetCCtx_internal\n\n",
        ),
        (
            "SHA-256",
            "tokio-rt-worker 14986 \n\
             \t          f1238d sha2::sha256::x86_sha::compress\n\
             \t          a1023e postkeep_shared::mail::digest::Hasher::update\n\
             \t          41fd0f postkeep_gateway::spool::writer::Incoming::write\n\n",
        ),
        // The same arithmetic, told apart by who asked for it.
        (
            "X25519",
            "tokio-rt-worker 14987 \n\
             \t          8a0d11 <&curve25519_dalek::backend::serial::u64::field::FieldElement51 as core::ops::arith::Mul>::mul\n\
             \t          89edc3 <curve25519_dalek::edwards::EdwardsBasepointTable as curve25519_dalek::traits::BasepointTable>::mul_base\n\
             \t          89e9ad <x25519_dalek::x25519::PublicKey as core::convert::From<&x25519_dalek::x25519::EphemeralSecret>>::from\n\n",
        ),
        (
            "Ed25519",
            "tokio-rt-worker 14987 \n\
             \t          8a0d11 <&curve25519_dalek::backend::serial::u64::field::FieldElement51 as core::ops::arith::Mul>::mul\n\
             \t          89edc3 <curve25519_dalek::edwards::EdwardsBasepointTable as curve25519_dalek::traits::BasepointTable>::mul_base\n\
             \t          9912aa <ed25519_dalek::signing::SigningKey as signature::signer::Signer<ed25519::Signature>>::try_sign\n\n",
        ),
        // `message::` is not the crate `age::`.
        (
            "journal and parts",
            "postkeep-archiv 15290 \n\
             \t          77a0c0 memchr::arch::x86_64::avx2::memchr::One::find_raw_avx2\n\
             \t          b0a3d2 mail_parser::core::message::<impl mail_parser::Message>::date\n\n",
        ),
        (
            "memory and copies",
            "postkeep-archiv 15290 \n\t           9a1f3 _int_free\n\t           9c2aa cfree@GLIBC_2.2.5\n\
             \t          6601aa postkeep_archiver::store::read_back::on_all_processors\n\n",
        ),
        (
            "sessions",
            "tokio-rt-worker 14987 \n\
             \t          7711a0 <postkeep_gateway::smtp::machine::Smtp as postkeep_shared::wire::Machine>::next\n\
             \t          789ae0 <core::pin::Pin<P> as core::future::future::Future>::poll\n\n",
        ),
        // Nothing known in it.
        (
            REST,
            "a name of words 7 \n\t          789ae0 <core::pin::Pin<P> as core::future::future::Future>::poll\n\
             \tffffffffffffffff [unknown]\n\n",
        ),
        // The kernel in a call nobody named: it is not the caller's own work.
        (
            REST,
            "tokio-rt-worker 14987 \n\tffffffff81f61b6c do_syscall_64\n\
             \tffffffff82000130 entry_SYSCALL_64_after_hwframe\n\
             \t          a0b1c2 <postkeep_shared::disk::local::LocalDisk as postkeep_shared::disk::Disk>::space\n\n",
        ),
        // The runtime carries what nobody knows, and does something itself.
        (
            REST,
            "tokio-rt-worker 14987 \n\t          9900aa unheard::of::work\n\
             \t          9912bb tokio::runtime::task::harness::Harness<T,S>::poll\n\n",
        ),
        ("tokio", "tokio-rt-worker 14987 \n\t          9912bb tokio::runtime::task::harness::Harness<T,S>::poll\n\n"),
        // What every thread begins with says nothing.
        (
            REST,
            "tokio-rt-worker 14987 \n\t          9900aa core::ops::function::FnOnce::call_once{{vtable.shim}}\n\
             \t           8d0c4 start_thread\n\t          10e92c clone3\n\n",
        ),
        // No frame at all.
        (REST, "tokio-rt-worker 14987 \n\n"),
    ];

    #[test]
    fn every_stack_has_the_category_of_its_innermost_known_frame() {
        let text: String = RECORDED.iter().map(|(_, stack)| *stack).collect();
        let mut found = Vec::new();
        perf::read(text.as_bytes(), |thread, stack| found.push((thread.to_owned(), category(stack)))).expect("a text");
        let categories: Vec<_> = found.iter().map(|(_, category)| *category).collect();
        assert_eq!(categories, RECORDED.iter().map(|(category, _)| *category).collect::<Vec<_>>());
        let threads: Vec<_> = found.iter().map(|(thread, _)| thread.as_str()).collect();
        assert!(threads.contains(&"a name of words") && threads.contains(&"packs"), "{threads:?}");
    }

    #[test]
    fn a_row_of_its_own_name_is_written_once_and_says_something() {
        for (at, Rule(category, known)) in RULES.iter().enumerate() {
            assert!(!known.trim().is_empty() && *category != REST, "{category}");
            assert!(RULES[..at].iter().all(|rule| rule.0 != *category), "{category} has two rows");
        }
    }
}

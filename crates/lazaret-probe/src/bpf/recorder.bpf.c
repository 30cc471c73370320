// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// The recorder: counts system calls per pid namespace, calling convention, phase and number, inside the kernel.
// Nothing is streamed; user space reads the maps when the programs are detached. What does not fit is counted in `lost`.
//
// The four programs run as `tp_btf` or, where that type is refused, as plain raw tracepoints: user space changes the type
// before loading. Both get the tracepoint's arguments as an array of u64; `tp_btf` arguments are only ever read through
// bpf_probe_read_kernel(), which is what the other type needs. The current task is a BTF pointer in both.
//
// Needs Linux 5.12 (atomics with return value in BPF; bpf_get_current_task_btf() is 5.11). No kernel header is included:
// CO-RE finds the fields below by name in the running kernel's BTF.

#if !defined(__TARGET_ARCH_x86)
#error "the recorder knows the system call conventions of x86-64 only"
#endif

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed int __s32;
typedef signed long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "GPL";

// include/uapi/linux/bpf.h
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
};
enum { BPF_ANY = 0, BPF_NOEXIST = 1 };
enum { BPF_F_RDONLY_PROG = 1U << 7 };
// include/uapi/asm-generic/errno-base.h
#define EEXIST 17
// arch/x86/include/asm/thread_info.h: set while a task is inside a 32-bit system call; seccomp's
// syscall_get_arch() (arch/x86/include/asm/syscall.h) decides by the same bit
#define TS_COMPAT 0x0002
// arch/x86/include/uapi/asm/unistd.h
#define X32_SYSCALL_BIT 0x40000000

// ---- the fields of the kernel's structures that are read ----

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct thread_info {
	__u32 status;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
};

struct task_struct {
	struct thread_info thread_info;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct signal_struct *signal;
};

struct pt_regs {
	unsigned long bp, bx, r10, r9, r8, cx, dx, si, di;
};

#pragma clang attribute pop

// ---- what is shared with user space (src/wire.rs; a test compares both through BTF) ----

enum abi { ABI_X86_64 = 0, ABI_I386 = 1, ABI_X32 = 2 };

enum phase { PHASE_PRELUDE = 0, PHASE_STARTUP = 1, PHASE_SERVING = 2, PHASE_STOPPING = 3, PHASE_EXEC = 4 };

// Where a process of a recorded namespace comes from.
enum origin {
	ORIGIN_NATIVE = 0,	// process 1 of the namespace or forked from one that is native
	ORIGIN_JOINED = 1,	// forked into the namespace from outside; has not executed a program there yet
	ORIGIN_EXECUTED = 2,	// was joined, and has executed a program; or is forked from such a process
};

// Calls 0..CALLS-1 of each convention can have summaries of their arguments.
enum { CALLS = 1024, ABIS = 3, ARGS = 6 };

enum { NO_SLOT = 0xffffffff };

struct config {
	__u32 own_inum;		// the recorder's own pid namespace, never recorded
	__u32 own_is_initial;	// it is the initial one: tasks at level 0 are then ours without another look
	__u32 values_max;	// distinct values kept per argument
	__u32 zero;
};

struct summary {
	__u64 args;		// bit n: argument n is summarised
	__u64 masks[ARGS];
};

struct process {
	__u32 slot;
	__u32 origin;
};

struct namespace {
	__u32 inum;
	__u32 parent;		// slot of the namespace it was made from; NO_SLOT when that is not recorded
	__u32 from_start;	// its process 1 was seen being forked
	__u32 zero;
};

struct call_key {
	__u32 slot;
	__u32 nr;
	__u8 abi;
	__u8 phase;
	__u8 arg;		// 0 in `calls`
	__u8 zero;
};

struct call_value {
	__u64 count;
	__u64 first_ns;
	__u64 last_ns;
};

struct value_key {
	struct call_key call;
	__u32 zero;
	__u64 value;
};

struct value_set {
	__u32 distinct;
	__u32 overflow;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct config);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ABIS * CALLS);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct summary);
} summaries SEC(".maps");

// Host thread group id -> where it belongs. Threads share their group's entry, so nothing moves when a thread that is not
// the leader calls execve and takes over the leader's id.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct process);
} processes SEC(".maps");

// Inode number of a pid namespace -> slot. The kernel reuses these numbers at once; slots are never reused.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct namespace);
} namespaces SEC(".maps");

// Slot -> phase of its native processes. Alone in its map because user space writes it too.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} phases SEC(".maps");

// How many slots are taken; grows past the end of `namespaces` when namespaces found no slot.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} slots_used SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1);
	__type(key, struct call_key);
	__type(value, struct call_value);
} calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct call_key);
	__type(value, struct value_set);
} value_sets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1);
	__type(key, struct value_key);
	__type(value, __u64);
} values SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

static const __u32 ZERO = 0;

static __always_inline void lose(void)
{
	__u64 *count = bpf_map_lookup_elem(&lost, &ZERO);
	if (count)
		*count += 1;
}

// ---- which namespace a task is in ----

struct place {
	__u32 inum;
	__u32 nr;	// the task's id as the namespace sees it
};

// task_active_pid_ns() and task_pid_vnr(), kernel/pid.c
static __always_inline void locate(struct task_struct *task, struct place *place)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);

	place->nr = BPF_CORE_READ(pid, numbers[level].nr);
	place->inum = BPF_CORE_READ(pid, numbers[level].ns, ns.inum);
}

// Tasks of the host are most of what runs: this is all that a recorder in the initial namespace costs them. A task at
// level 0 is in the initial namespace (include/linux/pid_namespace.h).
static __always_inline int is_hosts(struct task_struct *task, const struct config *config)
{
	return config->own_is_initial && task->thread_pid->level == 0;
}

// A fresh slot for a namespace; NO_SLOT, counted as a loss, when there is none.
static __noinline __u32 new_slot(__u32 inum, __u32 parent, __u32 from_start)
{
	__u32 *used = bpf_map_lookup_elem(&slots_used, &ZERO);
	struct namespace *namespace;
	__u32 *phase;
	__u32 slot;

	if (!used)
		return NO_SLOT;
	slot = __sync_fetch_and_add(used, 1);
	namespace = bpf_map_lookup_elem(&namespaces, &slot);
	phase = bpf_map_lookup_elem(&phases, &slot);
	if (!namespace || !phase) {
		lose();
		return NO_SLOT;
	}
	namespace->inum = inum;
	namespace->parent = parent;
	namespace->from_start = from_start;
	*phase = from_start ? PHASE_PRELUDE : PHASE_STARTUP;
	// replaces the slot of a dead namespace that had the same number
	if (bpf_map_update_elem(&slots, &inum, &slot, BPF_ANY)) {
		lose();
		return NO_SLOT;
	}
	return slot;
}

// The slot of a namespace whose process 1 is not being forked right now.
static __noinline __u32 slot_of(__u32 inum)
{
	__u32 *slot = bpf_map_lookup_elem(&slots, &inum);

	return slot ? *slot : new_slot(inum, NO_SLOT, 0);
}

static __always_inline int put_process(__u32 tgid, __u32 slot, __u32 origin)
{
	struct process process = { .slot = slot, .origin = origin };

	if (slot == NO_SLOT)
		return -1;
	if (bpf_map_update_elem(&processes, &tgid, &process, BPF_ANY)) {
		lose();
		return -1;
	}
	return 0;
}

// An entry for a process that was not seen being forked: it is older than the recorder, or its entry found no room. What
// is known then is its parent only. 0 when there is an entry now.
static __noinline int adopt(struct task_struct *task, __u32 tgid, __u32 own_inum)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);
	struct task_struct *parent = BPF_CORE_READ(leader, real_parent);
	struct place at = {}, of_parent = {};

	locate(leader, &at);
	if (at.inum == own_inum)
		return -1;
	locate(parent, &of_parent);
	return put_process(tgid, slot_of(at.inum),
			   at.nr == 1 || of_parent.inum == at.inum ? ORIGIN_NATIVE : ORIGIN_EXECUTED);
}

// ---- arguments ----

// arch/x86/include/asm/syscall.h, syscall_get_arguments()
static __always_inline __u64 argument(const struct pt_regs *regs, __u8 abi, int n)
{
	int i386 = abi == ABI_I386;

	switch (n) {
	case 0:
		return i386 ? BPF_CORE_READ(regs, bx) : BPF_CORE_READ(regs, di);
	case 1:
		return i386 ? BPF_CORE_READ(regs, cx) : BPF_CORE_READ(regs, si);
	case 2:
		return BPF_CORE_READ(regs, dx);
	case 3:
		return i386 ? BPF_CORE_READ(regs, si) : BPF_CORE_READ(regs, r10);
	case 4:
		return i386 ? BPF_CORE_READ(regs, di) : BPF_CORE_READ(regs, r8);
	default:
		return i386 ? BPF_CORE_READ(regs, bp) : BPF_CORE_READ(regs, r9);
	}
}

// The set that a new value goes into; NULL, counted as a loss, when there is no room for it.
static __always_inline struct value_set *value_set(const struct call_key *key)
{
	struct value_set *set = bpf_map_lookup_elem(&value_sets, key);
	struct value_set empty = {};

	if (set)
		return set;
	// -EEXIST when another CPU was faster
	bpf_map_update_elem(&value_sets, key, &empty, BPF_NOEXIST);
	set = bpf_map_lookup_elem(&value_sets, key);
	if (!set)
		lose();
	return set;
}

static __noinline int note_value(const struct value_key *key, __u32 values_max)
{
	__u64 *count = bpf_map_lookup_elem(&values, key);
	__u64 one = 1;
	struct value_set *set;
	long error;

	if (count) {
		*count += 1;
		return 0;
	}
	set = value_set(&key->call);
	if (!set)
		return 0;
	// Two CPUs that meet the same new value at once can both take a place; the later gives it back below. At the very
	// limit that can mark a set as overflown that just fits: the safe direction.
	if (set->distinct >= values_max || __sync_fetch_and_add(&set->distinct, 1) >= values_max) {
		set->overflow = 1;
		return 0;
	}
	error = bpf_map_update_elem(&values, key, &one, BPF_NOEXIST);
	if (!error)
		return 0;
	__sync_fetch_and_add(&set->distinct, -1);
	count = bpf_map_lookup_elem(&values, key);
	if (count) {
		*count += 1;
	} else {
		set->overflow = 1;
		lose();
	}
	return 0;
}

static __always_inline void note_arguments(const struct call_key *call, const struct pt_regs *regs, __u32 values_max)
{
	__u32 index = call->abi * CALLS + call->nr;
	struct summary *summary;

	if (call->nr >= CALLS)
		return;
	summary = bpf_map_lookup_elem(&summaries, &index);
	if (!summary || !summary->args)
		return;
#pragma unroll
	for (int n = 0; n < ARGS; n++) {
		if (summary->args & (1 << n)) {
			struct value_key key = { .call = *call };

			key.call.arg = n;
			key.value = argument(regs, call->abi, n) & summary->masks[n];
			note_value(&key, values_max);
		}
	}
}

// ---- the programs ----

// TP_PROTO(struct pt_regs *regs, long id), include/trace/events/syscalls.h
SEC("tp_btf/sys_enter")
int on_sys_enter(__u64 *ctx)
{
	struct config *config = bpf_map_lookup_elem(&settings, &ZERO);
	struct task_struct *task = bpf_get_current_task_btf();
	struct call_key key = {};
	struct process *process;
	struct call_value *value;
	__u32 tgid, slot, *phase;
	__u64 now;

	if (!config || is_hosts(task, config))
		return 0;
	tgid = task->tgid;
	process = bpf_map_lookup_elem(&processes, &tgid);
	if (!process) {
		if (adopt(task, tgid, config->own_inum))
			return 0;
		process = bpf_map_lookup_elem(&processes, &tgid);
		if (!process)
			return 0;
	}
	slot = process->slot;
	switch (process->origin) {
	case ORIGIN_NATIVE:
		phase = bpf_map_lookup_elem(&phases, &slot);
		if (!phase)
			return 0;
		key.phase = *phase;
		break;
	case ORIGIN_JOINED:
		key.phase = PHASE_PRELUDE;
		break;
	default:
		key.phase = PHASE_EXEC;
	}
	key.slot = slot;
	key.nr = ctx[1];
	if (task->thread_info.status & TS_COMPAT) {
		key.abi = ABI_I386;
	} else if (key.nr & X32_SYSCALL_BIT) {
		key.abi = ABI_X32;
		key.nr &= ~X32_SYSCALL_BIT;
	}

	value = bpf_map_lookup_elem(&calls, &key);
	if (!value) {
		struct call_value none = {};

		// -EEXIST when another CPU was faster
		bpf_map_update_elem(&calls, &key, &none, BPF_NOEXIST);
		value = bpf_map_lookup_elem(&calls, &key);
		if (!value) {
			lose();
			return 0;
		}
	}
	// No atomics: this is the CPU's own copy, and a second run on the same CPU cannot come between. Preemption is off, or,
	// from Linux 6.1 on, the kernel skips that run and counts it in recursion_misses (__bpf_trace_run()).
	now = bpf_ktime_get_ns();
	if (!value->count)
		value->first_ns = now;
	value->last_ns = now;
	value->count += 1;

	note_arguments(&key, (const struct pt_regs *)ctx[0], config->values_max);
	return 0;
}

// TP_PROTO(struct task_struct *parent, struct task_struct *child), include/trace/events/sched.h. Runs in the forking task,
// before the child runs for the first time (kernel_clone(), kernel/fork.c).
SEC("tp_btf/sched_process_fork")
int on_fork(__u64 *ctx)
{
	struct config *config = bpf_map_lookup_elem(&settings, &ZERO);
	struct task_struct *parent = (struct task_struct *)ctx[0];
	struct task_struct *child = (struct task_struct *)ctx[1];
	struct place at = {}, of_parent = {};
	__u32 tgid = BPF_CORE_READ(child, tgid);
	__u32 parent_tgid, parent_slot = NO_SLOT;
	struct process *process;

	if (!config || tgid != BPF_CORE_READ(child, pid))
		return 0; // a thread
	locate(child, &at);
	if (at.inum == config->own_inum)
		return 0;
	locate(parent, &of_parent);
	parent_tgid = BPF_CORE_READ(parent, tgid);
	process = bpf_map_lookup_elem(&processes, &parent_tgid);
	if (at.nr == 1) {
		if (process)
			parent_slot = process->slot;
		put_process(tgid, new_slot(at.inum, parent_slot, 1), ORIGIN_NATIVE);
		return 0;
	}
	if (at.inum != of_parent.inum) {
		put_process(tgid, slot_of(at.inum), ORIGIN_JOINED);
		return 0;
	}
	if (!process && !adopt(parent, parent_tgid, config->own_inum))
		process = bpf_map_lookup_elem(&processes, &parent_tgid);
	if (process)
		put_process(tgid, process->slot, process->origin);
	return 0;
}

// TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm). Only successful calls come here
// (exec_binprm(), fs/exec.c), and the caller already has its leader's id.
SEC("tp_btf/sched_process_exec")
int on_exec(__u64 *ctx)
{
	struct config *config = bpf_map_lookup_elem(&settings, &ZERO);
	struct task_struct *task = bpf_get_current_task_btf();
	struct process *process;
	struct place at = {};
	__u32 tgid, slot, *phase;

	if (!config || is_hosts(task, config))
		return 0;
	tgid = task->tgid;
	process = bpf_map_lookup_elem(&processes, &tgid);
	if (!process)
		return 0;
	if (process->origin == ORIGIN_JOINED) {
		process->origin = ORIGIN_EXECUTED;
		return 0;
	}
	locate(task, &at);
	if (process->origin != ORIGIN_NATIVE || at.nr != 1)
		return 0;
	slot = process->slot;
	phase = bpf_map_lookup_elem(&phases, &slot);
	if (phase)
		__sync_val_compare_and_swap(phase, PHASE_PRELUDE, PHASE_STARTUP);
	return 0;
}

// TP_PROTO(struct task_struct *p, …). do_exit() (kernel/exit.c) has already taken this thread off `live`: 0 means that no
// thread of the group makes another call.
SEC("tp_btf/sched_process_exit")
int on_exit(__u64 *ctx)
{
	struct config *config = bpf_map_lookup_elem(&settings, &ZERO);
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 tgid = task->tgid;

	if (config && !is_hosts(task, config) && task->signal->live.counter == 0)
		bpf_map_delete_elem(&processes, &tgid);
	return 0;
}

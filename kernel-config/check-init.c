// PID 1 of the guest that check.sh boots: asks the running kernel, by system
// call, for what the fragments promise, and prints a line for each answer.
//
// An option that survived kconfig may still not work (a driver that does not
// probe, a default that is off): only the running kernel knows.

#define _GNU_SOURCE
// before the kernel's own headers, which then leave its names alone
#include <net/if.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_tun.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/reboot.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static int passed, failed;

static void check(int good, const char *format, ...)
{
	int error = errno;
	va_list args;

	good ? passed++ : failed++;
	printf(good ? "ok    " : "FAIL  ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	if (!good)
		printf(" (%s)", strerror(error));
	printf("\n");
	errno = 0;
}

// The whole of a small file of /proc or /sys, empty if it cannot be read.
static const char *slurp(const char *path)
{
	static char text[65536];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size, total = 0;

	text[0] = 0;
	if (fd < 0)
		return text;
	while ((size = read(fd, text + total, sizeof(text) - 1 - total)) > 0)
		total += size;
	text[total] = 0;
	close(fd);
	return text;
}

static int spit(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t size;

	if (fd < 0)
		return 0;
	size = write(fd, text, strlen(text));
	close(fd);
	return size == (ssize_t)strlen(text);
}

// Is `word` in `text`, between white space?
static int has_word(const char *text, const char *word)
{
	size_t size = strlen(word);
	const char *at = text;

	while ((at = strstr(at, word))) {
		int starts = at == text || strchr(" \t\n", at[-1]);
		int ends = !at[size] || strchr(" \t\n", at[size]);

		if (starts && ends)
			return 1;
		at += size;
	}
	return 0;
}

static void filesystems(void)
{
	static const char *const names[] = { "proc", "sysfs", "tmpfs", "devtmpfs", "devpts", "cgroup2", "bpf",
		"mqueue", "hugetlbfs", "overlay", "fuse", "virtiofs", "ext4", "ext2", "erofs", "binfmt_misc",
		"securityfs", "ramfs" };
	char text[8192];

	strncpy(text, slurp("/proc/filesystems"), sizeof(text) - 1);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		check(has_word(text, names[i]), "filesystem %s", names[i]);
}

static void mounts(void)
{
	static const struct { const char *type, *at, *options; } table[] = {
		{ "devpts", "/dev/pts", "newinstance,ptmxmode=0666" }, { "mqueue", "/dev/mqueue", NULL },
		{ "hugetlbfs", "/huge", NULL }, { "bpf", "/bpf", NULL },
		{ "binfmt_misc", "/proc/sys/fs/binfmt_misc", NULL }, { "securityfs", "/sys/kernel/security", NULL },
		{ "tmpfs", "/tmp", "mode=1777,size=16m" },
	};
	// user::rw-, user:1000:rw-, group::r--, mask::rw-, other::r--
	static const unsigned char acl[] = { 2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, 232, 3, 0, 0,
		4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255 };

	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		mkdir(table[i].at, 0755);
		check(!mount(table[i].type, table[i].at, table[i].type, 0, table[i].options), "mount %s", table[i].type);
	}
	close(open("/tmp/file", O_CREAT | O_WRONLY, 0644));
	check(!setxattr("/tmp/file", "user.husk", "x", 1, 0), "tmpfs takes user xattrs");
	check(!setxattr("/tmp/file", "trusted.husk", "x", 1, 0), "tmpfs takes trusted xattrs");
	check(!setxattr("/tmp/file", "system.posix_acl_access", acl, sizeof(acl), 0), "tmpfs takes POSIX ACLs");
	mkdir("/tmp/lower", 0755), mkdir("/tmp/upper", 0755), mkdir("/tmp/work", 0755), mkdir("/tmp/merged", 0755);
	close(open("/tmp/lower/a", O_CREAT | O_WRONLY, 0644));
	check(!mount("overlay", "/tmp/merged", "overlay", 0,
		"lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"), "mount overlay on tmpfs");
	check(!unlink("/tmp/merged/a") && !access("/tmp/upper/a", F_OK), "overlay makes a whiteout");
	check(open("/dev/fuse", O_RDWR) >= 0, "open /dev/fuse");
	check(ioctl(open("/dev/loop-control", O_RDWR), 0x4C82) == 0, "first free loop device is 0");
	check(open("/dev/ptmx", O_RDWR) >= 0, "open /dev/ptmx");
	check(open("/dev/net/tun", O_RDWR) >= 0, "open /dev/net/tun");
}

static void controllers(void)
{
	static const char *const names[] = { "cpuset", "cpu", "io", "memory", "hugetlb", "pids", "misc" };
	static const struct { const char *file, *value; } limits[] = {
		{ "cpu.max", "50000 100000" }, { "cpu.weight", "200" }, { "cpuset.cpus", "0" }, { "cpuset.mems", "0" },
		{ "memory.max", "8388608" }, { "memory.swap.max", "0" }, { "pids.max", "16" },
		{ "io.weight", "default 200" }, { "hugetlb.2MB.max", "0" }, { "cgroup.freeze", "0" },
	};
	char text[256], path[128];

	strncpy(text, slurp("/sys/fs/cgroup/cgroup.controllers"), sizeof(text) - 1);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		check(has_word(text, names[i]), "cgroup controller %s", names[i]);
	check(spit("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset +cpu +io +memory +hugetlb +pids +misc"),
		"controllers can be handed down");
	mkdir("/sys/fs/cgroup/c", 0755);
	for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
		snprintf(path, sizeof(path), "/sys/fs/cgroup/c/%s", limits[i].file);
		check(spit(path, limits[i].value), "%s = %s", limits[i].file, limits[i].value);
	}
	check(!access("/sys/fs/cgroup/c/memory.pressure", R_OK), "pressure stall information per cgroup");
	check(!access("/sys/fs/cgroup/c/io.max", R_OK), "io.max");
}

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

// What runc and crun attach for linux.resources.devices: allow all.
static void device_control(void)
{
	struct bpf_insn code[] = { { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 1 },
		{ .code = BPF_JMP | BPF_EXIT } };
	union bpf_attr load = { .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insns = (uintptr_t)code,
		.insn_cnt = 2, .license = (uintptr_t)"GPL" };
	union bpf_attr attach = { .attach_type = BPF_CGROUP_DEVICE };
	int program = bpf(BPF_PROG_LOAD, &load);

	check(program >= 0, "bpf loads a device program");
	attach.target_fd = open("/sys/fs/cgroup/c", O_RDONLY | O_DIRECTORY);
	attach.attach_bpf_fd = program;
	check(!bpf(BPF_PROG_ATTACH, &attach), "bpf attaches it to a cgroup");
	check(!strcmp(slurp("/proc/sys/net/core/bpf_jit_enable"), "1\n"), "bpf is compiled (JIT)");
	check(atoi(slurp("/proc/sys/kernel/unprivileged_bpf_disabled")) == 2, "bpf is not for everyone");
}

static void namespaces(void)
{
	static const struct { int flag; const char *name; } table[] = { { CLONE_NEWNS, "mnt" }, { CLONE_NEWUTS, "uts" },
		{ CLONE_NEWIPC, "ipc" }, { CLONE_NEWUSER, "user" }, { CLONE_NEWPID, "pid" }, { CLONE_NEWNET, "net" },
		{ CLONE_NEWCGROUP, "cgroup" }, { 0x80, "time" } };
	char path[64];

	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		int status = -1;
		pid_t child = fork();

		if (!child)
			_exit(unshare(table[i].flag) ? errno : 0);
		waitpid(child, &status, 0);
		errno = WEXITSTATUS(status);
		check(status == 0, "unshare %s namespace", table[i].name);
		snprintf(path, sizeof(path), "/proc/self/ns/%s", table[i].name);
		check(!access(path, F_OK), "%s", path);
	}
}

static void sockets(void)
{
	static const struct { int family, type, protocol; const char *name; } table[] = {
		{ AF_UNIX, SOCK_SEQPACKET, 0, "unix" }, { AF_INET, SOCK_STREAM, 0, "inet" },
		{ AF_INET6, SOCK_STREAM, 0, "inet6" }, { AF_INET, SOCK_RAW, IPPROTO_ICMP, "inet raw" },
		{ AF_PACKET, SOCK_RAW, 0, "packet" }, { AF_VSOCK, SOCK_STREAM, 0, "vsock" },
		{ AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, "netlink route" },
		{ AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER, "netlink netfilter" },
		{ AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG, "netlink sock_diag" },
		{ AF_NETLINK, SOCK_RAW, NETLINK_GENERIC, "netlink generic" },
		{ AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT, "netlink uevent" },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		int fd = socket(table[i].family, table[i].type | SOCK_CLOEXEC, table[i].protocol);

		check(fd >= 0, "socket %s", table[i].name);
		close(fd);
	}
	check(has_word(slurp("/proc/sys/net/ipv4/tcp_available_congestion_control"), "bbr"), "TCP BBR");
}

// --- rtnetlink: one request, one answer ---

static struct { struct nlmsghdr head; char body[1024]; } request;

static void *append(int type, const void *data, size_t size)
{
	struct rtattr *attr = (void *)((char *)&request + NLMSG_ALIGN(request.head.nlmsg_len));

	attr->rta_type = type;
	attr->rta_len = RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(attr), data, size);
	request.head.nlmsg_len = NLMSG_ALIGN(request.head.nlmsg_len) + RTA_ALIGN(attr->rta_len);
	return attr;
}

static void nest_end(struct rtattr *attr)
{
	attr->rta_len = (char *)&request + request.head.nlmsg_len - (char *)attr;
}

static void *begin(int type, int flags, size_t size)
{
	memset(&request, 0, sizeof(request));
	request.head.nlmsg_len = NLMSG_LENGTH(size);
	request.head.nlmsg_type = type;
	request.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	return NLMSG_DATA(&request.head);
}

static int ask(int protocol)
{
	static char answer[16384];
	struct nlmsghdr *head = (void *)answer;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	int result = -1;

	if (fd < 0)
		return 0;
	if (send(fd, &request, request.head.nlmsg_len, 0) > 0 && recv(fd, answer, sizeof(answer), 0) > 0) {
		errno = head->nlmsg_type == NLMSG_ERROR ? -((struct nlmsgerr *)NLMSG_DATA(head))->error : 0;
		result = errno ? -1 : 0;
	}
	close(fd);
	return result == 0;
}

// As `ip link add NAME type KIND`; some kinds need a parent or a number.
static int link_add(const char *kind, const char *name, int parent, int data_type, const void *data, size_t size)
{
	struct rtattr *info, *more;

	((struct ifinfomsg *)begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg)))->ifi_family = 0;
	append(IFLA_IFNAME, name, strlen(name) + 1);
	if (parent)
		append(IFLA_LINK, &parent, sizeof(parent));
	info = append(IFLA_LINKINFO, NULL, 0);
	append(IFLA_INFO_KIND, kind, strlen(kind) + 1);
	if (data) {
		more = append(IFLA_INFO_DATA, NULL, 0);
		append(data_type, data, size);
		nest_end(more);
	}
	nest_end(info);
	return ask(NETLINK_ROUTE);
}

static int qdisc_add(const char *kind, int parent, int handle, int link)
{
	struct tcmsg *message = begin(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*message));
	struct tc_htb_glob htb = { .version = 3, .rate2quantum = 10 };
	struct rtattr *options;

	message->tcm_ifindex = link;
	message->tcm_parent = parent;
	message->tcm_handle = handle;
	append(TCA_KIND, kind, strlen(kind) + 1);
	if (!strcmp(kind, "htb")) {
		options = append(TCA_OPTIONS, NULL, 0);
		append(TCA_HTB_INIT, &htb, sizeof(htb));
		nest_end(options);
	}
	return ask(NETLINK_ROUTE);
}

static void interfaces(void)
{
	uint32_t vni = 7;
	uint16_t tag = 7;
	int parent, tun;
	struct ifreq tap = { .ifr_name = "tap0", .ifr_flags = IFF_TAP | IFF_NO_PI };

	check(!strstr(slurp("/proc/net/dev"), "dummy0"), "no interface that nobody asked for");
	check(link_add("dummy", "dum0", 0, 0, NULL, 0), "interface dummy");
	parent = if_nametoindex("dum0");
	check(link_add("bridge", "br0", 0, 0, NULL, 0), "interface bridge");
	check(link_add("veth", "ve0", 0, 0, NULL, 0), "interface veth");
	check(link_add("vlan", "vl0", parent, 1, &tag, sizeof(tag)), "interface vlan");
	check(link_add("macvlan", "mv0", parent, 0, NULL, 0), "interface macvlan");
	check(link_add("vxlan", "vx0", 0, 1, &vni, sizeof(vni)), "interface vxlan");
	check(link_add("wireguard", "wg0", 0, 0, NULL, 0), "interface wireguard");
	check(link_add("dummy", "dum1", 0, 0, NULL, 0) &&
		link_add("ipvlan", "iv0", if_nametoindex("dum1"), 0, NULL, 0), "interface ipvlan");
	tun = open("/dev/net/tun", O_RDWR);
	check(!ioctl(tun, TUNSETIFF, &tap), "interface tap");
	check(qdisc_add("htb", TC_H_ROOT, 1 << 16, parent), "qdisc htb");
	check(qdisc_add("fq_codel", TC_H_ROOT, 0, if_nametoindex("ve0")), "qdisc fq_codel");
	check(qdisc_add("tbf", 0, 0, 0) || errno != ENOENT, "qdisc tbf is known");
	check(qdisc_add("ingress", TC_H_INGRESS, 0xffff0000, parent), "qdisc ingress");
	check(!access("/proc/sys/net/bridge/bridge-nf-call-iptables", W_OK), "bridge-nf-call-iptables");
	check(!access("/proc/sys/net/ipv6/conf/all/forwarding", W_OK), "IPv6 forwarding can be set");
	check(!access("/proc/sys/net/netfilter/nf_conntrack_max", W_OK), "conntrack");
	check(!access("/proc/sys/net/ipv4/vs/conntrack", W_OK), "ipvs, with conntrack");
}

// The question that iptables itself asks before it uses an extension.
static void extensions(int raw, int option, const char *kind, const char *names)
{
	char list[2048], *name;

	strncpy(list, names, sizeof(list) - 1);
	for (name = strtok(list, " "); name; name = strtok(NULL, " ")) {
		struct { char name[29]; uint8_t revision; } ask = { .revision = 0 };
		socklen_t size = sizeof(ask);

		strncpy(ask.name, name, sizeof(ask.name) - 1);
		// EPROTONOSUPPORT: the extension is there, at another revision.
		check(!getsockopt(raw, IPPROTO_IP, option, &ask, &size) || errno == EPROTONOSUPPORT,
			"iptables %s %s", kind, name);
	}
}

static void netfilter(void)
{
	static const char *const tables[] = { "filter", "nat", "mangle", "raw" };
	int raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW), raw6 = socket(AF_INET6, SOCK_RAW, IPPROTO_RAW);
	struct { uint8_t family, version; uint16_t resource; } *head;

	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++) {
		struct ipt_getinfo info = { 0 };
		socklen_t size = sizeof(info);

		strcpy(info.name, tables[i]);
		check(!getsockopt(raw, IPPROTO_IP, IPT_SO_GET_INFO, &info, &size), "iptables table %s", tables[i]);
		size = sizeof(info);
		check(!getsockopt(raw6, IPPROTO_IPV6, IPT_SO_GET_INFO, &info, &size), "ip6tables table %s", tables[i]);
	}
	extensions(raw, IPT_SO_GET_REVISION_MATCH, "match", "addrtype bpf cgroup comment connbytes connlimit connmark "
		"conntrack dscp esp hashlimit helper ttl iprange ipvs length limit mac mark multiport nfacct owner physdev "
		"pkttype quota recent sctp set socket state statistic string tcp tcpmss time u32 udp rpfilter");
	extensions(raw, IPT_SO_GET_REVISION_TARGET, "target", "CHECKSUM CLASSIFY CONNMARK CT DNAT DSCP LOG MARK "
		"MASQUERADE NETMAP NFLOG NFQUEUE REDIRECT REJECT SET SNAT TCPMSS TEE TPROXY TTL");

	// subsystem 10 is nf_tables, message 16 asks for its generation
	head = begin(10 << 8 | 16, 0, sizeof(*head));
	check(ask(NETLINK_NETFILTER), "nf_tables answers");
	// subsystem 6 is ipset, message 1 asks for the protocol it speaks
	head = begin(6 << 8 | 1, 0, sizeof(*head));
	head->family = AF_INET;
	append(1, "\7", 1);
	check(ask(NETLINK_NETFILTER), "ipset answers");
}

static void system_calls(void)
{
	char ring[256] = { 0 };
	struct mq_attr_like { long flags, max, size, now, pad[4]; } queue = { .max = 4, .size = 64 };
	struct { uint64_t api, features, ioctls; } uffd = { .api = 0xaa };
	unsigned long context = 0;
	int action = 0x7fff0000, fd;

	check(syscall(SYS_io_uring_setup, 8, ring) >= 0, "io_uring_setup");
	check(!syscall(SYS_io_setup, 8, &context), "io_setup (AIO)");
	check(!syscall(SYS_seccomp, 2, 0, &action), "seccomp filters, action ALLOW");
	action = 0x7fc00000;
	check(!syscall(SYS_seccomp, 2, 0, &action), "seccomp filters, action USER_NOTIF");
	check(syscall(SYS_landlock_create_ruleset, NULL, 0, 1) >= 4, "landlock, with network rules");
	check(syscall(SYS_mq_open, "husk", O_CREAT | O_RDWR, 0600, &queue) >= 0, "POSIX message queue");
	check(syscall(SYS_shmget, 0, 4096, 0600) >= 0, "System V shared memory");
	check(syscall(SYS_semget, 0, 1, 0600) >= 0, "System V semaphores");
	check(syscall(SYS_msgget, 0, 0600) >= 0, "System V message queue");
	fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	check(fd >= 0 && !ioctl(fd, 0xc018aa3f, &uffd), "userfaultfd");
	check(syscall(SYS_fanotify_init, 4, O_RDONLY) >= 0, "fanotify, with permission events");
	check(syscall(SYS_inotify_init1, 0) >= 0, "inotify");
	check(syscall(SYS_memfd_create, "husk", 2) >= 0, "memfd_create");
	check(syscall(SYS_memfd_create, "husk", 4) >= 0, "memfd_create, huge pages");
	check(syscall(SYS_memfd_secret, 0) >= 0, "memfd_secret");
	check(syscall(SYS_eventfd2, 0, 0) >= 0, "eventfd");
	check(syscall(SYS_timerfd_create, CLOCK_MONOTONIC, 0) >= 0, "timerfd");
	check(syscall(SYS_signalfd4, -1, &(uint64_t){ 0 }, 8, 0) >= 0, "signalfd");
	check(epoll_create1(0) >= 0, "epoll");
	check(syscall(SYS_pidfd_open, getpid(), 0) >= 0, "pidfd_open");
	check(syscall(SYS_membarrier, 0, 0) > 0, "membarrier");
	check(syscall(SYS_kcmp, getpid(), getpid(), 0, 1, 1) == 0, "kcmp");
	check(syscall(SYS_add_key, "user", "husk", "x", 1L, -3) > 0, "kernel keyring");
	check(syscall(SYS_pkey_alloc, 0, 0) >= 0 || errno == ENOSPC, "memory protection keys");
	// type software, config cpu-clock
	check(syscall(SYS_perf_event_open, &(uint32_t[32]){ 1, 128 }, 0, -1, -1, 0) >= 0, "perf software event");
	check(syscall(SYS_process_vm_readv, getpid(), NULL, 0L, NULL, 0L, 0L) == 0, "process_vm_readv");
	check(syscall(SYS_name_to_handle_at, AT_FDCWD, "/tmp", &(uint32_t[34]){ 128 }, &(int){ 0 }, 0) == 0,
		"name_to_handle_at");
	// The kernel starts with it off when it sees less than 512 MiB, whatever was configured.
	check(spit("/sys/kernel/mm/transparent_hugepage/enabled", "madvise"), "transparent huge pages on madvise");
	check(!access("/proc/config.gz", R_OK), "/proc/config.gz");
}

// Programs that are not 64-bit: int 0x80 reaches the 32-bit table.
static void emulation(void)
{
	long result;

	__asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
	check(result == getpid(), "32-bit system calls (IA32 emulation)");
}

static void devices(void)
{
	static const char *const drivers[] = { "virtio_balloon", "virtio_blk", "virtio_console", "virtio_mem",
		"virtio_net", "virtio_rng", "virtiofs", "vmw_vsock_virtio_transport" };
	char path[128];

	for (size_t i = 0; i < sizeof(drivers) / sizeof(*drivers); i++) {
		snprintf(path, sizeof(path), "/sys/bus/virtio/drivers/%s", drivers[i]);
		check(!access(path, F_OK), "driver %s", drivers[i]);
	}
	check(strstr(slurp("/sys/class/misc/hw_random/rng_current"), "virtio") != NULL, "virtio-rng is the source in use");
	check(!access("/sys/class/net/eth0", F_OK), "virtio-net is eth0");
	check(!access("/sys/block/vda", F_OK), "virtio-blk is vda");
	mkdir("/disk", 0755);
	check(!mount("/dev/vda", "/disk", "ext4", 0, NULL), "ext4 on virtio-blk mounts");
	check(strstr(slurp("/sys/devices/system/memory/auto_online_blocks"), "online") != NULL,
		"plugged memory comes online by itself");
	check(access("/sys/bus/pci", F_OK) != 0, "no PCI");
	check(access("/proc/modules", F_OK) != 0, "no modules");
	check(access("/dev/mem", F_OK) != 0, "no /dev/mem");
}

// A vcpu that was left offline at start is brought online as the agent does it.
static void late_cpu(void)
{
	check(!strcmp(slurp("/sys/devices/system/cpu/online"), "0\n"), "one vcpu online at start");
	check(spit("/sys/devices/system/cpu/cpu1/online", "1"), "cpu1 comes online through sysfs");
	check(!strcmp(slurp("/sys/devices/system/cpu/online"), "0-1\n"), "two vcpus online");
	check(spit("/sys/devices/system/cpu/cpu1/online", "0"), "cpu1 goes offline again");
}

int main(void)
{
	struct utsname name;
	struct timespec up;

	mkdir("/proc", 0755), mkdir("/sys", 0755), mkdir("/dev", 0755), mkdir("/tmp", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	for (int fd = 0; fd < 3; fd++)
		dup2(open("/dev/hvc0", O_RDWR), fd);
	setvbuf(stdout, NULL, _IOLBF, 0);
	clock_gettime(CLOCK_BOOTTIME, &up);
	uname(&name);
	printf("info  %s %s\n", name.release, name.version);
	printf("info  first process after %ld.%03ld s\n", (long)up.tv_sec, up.tv_nsec / 1000000);
	printf("info  %.28s\n", slurp("/proc/meminfo"));
	check(!mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, NULL), "mount cgroup2");

	filesystems();
	mounts();
	controllers();
	device_control();
	namespaces();
	sockets();
	interfaces();
	netfilter();
	system_calls();
	emulation();
	devices();
	late_cpu();

	printf("%d passed, %d failed\n", passed, failed);
	fflush(stdout);
	sync();
	reboot(RB_AUTOBOOT);
	return 1;
}

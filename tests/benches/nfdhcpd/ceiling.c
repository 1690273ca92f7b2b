/*
 * The ceiling: the least that a responder behind NFQUEUE can do, to measure nfdhcpd against.
 *
 * It receives packets in batches, answers each with a frame that was built beforehand, and lets
 * the kernel drop the batch. It trusts everything: it looks at fixed offsets, knows no binding,
 * no option and no error. Arguments: queue number, folder with `offer`, `ra`, `na` (frames to
 * send; the UDP checksum of `offer` holds the sum of what is not filled in here) and `guests`
 * (lines of interface index, MAC, IPv4 address).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define BATCH 64
#define RECEIVE 2048
#define FRAME 512

struct guest {
	uint8_t mac[6];
	uint8_t ip[4];
};

struct canned {
	uint8_t bytes[FRAME];
	size_t length;
};

static struct guest *guests;
static size_t guest_limit;
static struct canned offer, ra, na;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static FILE *open_in(const char *folder, const char *name)
{
	char path[512];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	FILE *file = fopen(path, "r");
	if (!file)
		die(path);
	return file;
}

static void load_canned(const char *folder, const char *name, struct canned *frame)
{
	FILE *file = open_in(folder, name);
	frame->length = fread(frame->bytes, 1, FRAME, file);
	fclose(file);
}

static void load_guests(const char *folder)
{
	FILE *file = open_in(folder, "guests");
	unsigned index;
	struct guest guest;
	while (fscanf(file, "%u %hhx:%hhx:%hhx:%hhx:%hhx:%hhx %hhu.%hhu.%hhu.%hhu", &index,
		      &guest.mac[0], &guest.mac[1], &guest.mac[2], &guest.mac[3], &guest.mac[4],
		      &guest.mac[5], &guest.ip[0], &guest.ip[1], &guest.ip[2], &guest.ip[3]) == 11) {
		if (index >= guest_limit) {
			guest_limit = index * 2 + 64;
			guests = realloc(guests, guest_limit * sizeof *guests);
			if (!guests)
				die("memory");
		}
		guests[index] = guest;
	}
	fclose(file);
}

static void *attribute(void *at, uint16_t type, const void *value, uint16_t length)
{
	struct nlattr *header = at;
	header->nla_type = type;
	header->nla_len = NLA_HDRLEN + length;
	memcpy((char *)at + NLA_HDRLEN, value, length);
	return (char *)at + NLA_HDRLEN + NLA_ALIGN(length);
}

static void *begin(void *buffer, uint16_t type, uint16_t flags, uint16_t queue)
{
	struct nlmsghdr *header = buffer;
	struct nfgenmsg *message = NLMSG_DATA(header);
	memset(buffer, 0, NLMSG_SPACE(sizeof *message));
	header->nlmsg_type = (NFNL_SUBSYS_QUEUE << 8) | type;
	header->nlmsg_flags = NLM_F_REQUEST | flags;
	message->version = NFNETLINK_V0;
	message->res_id = htons(queue);
	return (char *)buffer + NLMSG_SPACE(sizeof *message);
}

static int open_queue(uint16_t number)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	struct sockaddr_nl any = { .nl_family = AF_NETLINK };
	int size = 8 << 20, on = 1;
	if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any) < 0)
		die("netlink");
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on);

	char request[256], answer[RECEIVE];
	struct nfqnl_msg_config_cmd command = { .command = NFQNL_CFG_CMD_BIND };
	struct nfqnl_msg_config_params parameters = { .copy_range = htonl(1500),
						      .copy_mode = NFQNL_COPY_PACKET };
	uint32_t length = htonl(8192), flags = htonl(NFQA_CFG_F_GSO);
	char *end = begin(request, NFQNL_MSG_CONFIG, NLM_F_ACK, number);
	end = attribute(end, NFQA_CFG_CMD, &command, sizeof command);
	end = attribute(end, NFQA_CFG_PARAMS, &parameters, sizeof parameters);
	end = attribute(end, NFQA_CFG_QUEUE_MAXLEN, &length, sizeof length);
	end = attribute(end, NFQA_CFG_FLAGS, &flags, sizeof flags);
	end = attribute(end, NFQA_CFG_MASK, &flags, sizeof flags);
	((struct nlmsghdr *)request)->nlmsg_len = end - request;
	if (send(fd, request, end - request, 0) < 0 || recv(fd, answer, sizeof answer, 0) < 0)
		die("queue");
	struct nlmsgerr *result = NLMSG_DATA((struct nlmsghdr *)answer);
	if (result->error) {
		fprintf(stderr, "queue %u: %s\n", number, strerror(-result->error));
		exit(1);
	}
	return fd;
}

static uint32_t sum(const uint8_t *bytes, size_t length)
{
	uint32_t total = 0;
	for (size_t i = 0; i < length; i += 2)
		total += bytes[i] << 8 | bytes[i + 1];
	return total;
}

static uint16_t checksum(uint32_t total)
{
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	/* a checksum of 0 would mean none (RFC 768); its other form is the same number */
	return htons(total == 0xffff ? 0xffff : ~total & 0xffff);
}

/* Fills in the answer; returns its length. The packet begins with its IP header. */
static size_t answer(const uint8_t *packet, const struct guest *guest, uint8_t *frame)
{
	if (packet[0] >> 4 == 4) {
		/* BOOTP after IP and UDP: xid at 4, yiaddr at 16, chaddr at 28, options at 240 */
		uint8_t *bootp = frame + 14 + 28;
		uint16_t total;
		memcpy(frame, offer.bytes, offer.length);
		memcpy(frame, guest->mac, 6);
		memcpy(bootp + 4, packet + 28 + 4, 4);
		memcpy(bootp + 16, guest->ip, 4);
		memcpy(bootp + 28, guest->mac, 6);
		bootp[242] = packet[28 + 242] == 1 ? 2 : 5;
		memcpy(&total, frame + 40, 2);
		total = checksum(ntohs(total) + sum(bootp + 4, 4) + sum(guest->ip, 4) +
				 sum(guest->mac, 6) + (bootp[242] << 8));
		memcpy(frame + 40, &total, 2);
		return offer.length;
	}
	if (packet[40] == 133) {
		memcpy(frame, ra.bytes, ra.length);
		return ra.length;
	}
	memcpy(frame, na.bytes, na.length);
	memcpy(frame, guest->mac, 6);
	memcpy(frame + 14 + 24, packet + 8, 16);
	uint16_t total = checksum(58 + (na.length - 54) + sum(frame + 14 + 8, na.length - 22));
	memcpy(frame + 14 + 42, &total, 2);
	return na.length;
}

/* As sd_notify(3) does. */
static void say_ready(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = getenv("NOTIFY_SOCKET");
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (!path || fd < 0)
		return;
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&address, sizeof address);
	close(fd);
}

int main(int argc, char **argv)
{
	static uint8_t received[BATCH][RECEIVE], frames[BATCH][FRAME];
	static struct mmsghdr in[BATCH], out[BATCH];
	static struct iovec in_at[BATCH], out_at[BATCH];
	static struct sockaddr_ll ports[BATCH];

	if (argc != 3) {
		fprintf(stderr, "usage: ceiling QUEUE FOLDER\n");
		return 2;
	}
	uint16_t number = atoi(argv[1]);
	load_canned(argv[2], "offer", &offer);
	load_canned(argv[2], "ra", &ra);
	load_canned(argv[2], "na", &na);
	load_guests(argv[2]);
	int queue = open_queue(number);
	int wire = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (wire < 0)
		die("packet socket");
	for (int i = 0; i < BATCH; i++) {
		in_at[i] = (struct iovec){ received[i], RECEIVE };
		in[i].msg_hdr.msg_iov = &in_at[i];
		in[i].msg_hdr.msg_iovlen = 1;
		out_at[i].iov_base = frames[i];
		ports[i] = (struct sockaddr_ll){ .sll_family = AF_PACKET, .sll_halen = 6 };
		out[i].msg_hdr.msg_iov = &out_at[i];
		out[i].msg_hdr.msg_iovlen = 1;
		out[i].msg_hdr.msg_name = &ports[i];
		out[i].msg_hdr.msg_namelen = sizeof ports[i];
	}
	say_ready();

	for (;;) {
		int count = recvmmsg(queue, in, BATCH, MSG_WAITFORONE, NULL);
		if (count < 0)
			die("receive");
		int answers = 0, newest = 0;
		uint32_t last = 0;
		for (int i = 0; i < count; i++) {
			uint8_t *at = received[i] + NLMSG_SPACE(sizeof(struct nfgenmsg));
			uint8_t *end = received[i] + in[i].msg_len, *payload = NULL;
			uint32_t index = 0;
			while (at + NLA_HDRLEN <= end) {
				struct nlattr *header = (struct nlattr *)at;
				uint8_t *value = at + NLA_HDRLEN;
				switch (header->nla_type & NLA_TYPE_MASK) {
				case NFQA_PACKET_HDR:
					memcpy(&last, value, 4);
					newest = 1;
					break;
				case NFQA_IFINDEX_INDEV:
					if (!index)
						memcpy(&index, value, 4);
					break;
				case NFQA_IFINDEX_PHYSINDEV:
					memcpy(&index, value, 4);
					break;
				case NFQA_PAYLOAD:
					payload = value;
				}
				at += NLA_ALIGN(header->nla_len);
			}
			index = ntohl(index);
			if (!payload || index >= guest_limit)
				continue;
			out_at[answers].iov_len = answer(payload, &guests[index], frames[answers]);
			ports[answers].sll_ifindex = index;
			memcpy(&ports[answers].sll_protocol, frames[answers] + 12, 2);
			answers++;
		}
		for (int sent = 0; sent < answers;) {
			int now = sendmmsg(wire, out + sent, answers - sent, 0);
			sent += now > 0 ? now : 1;
		}
		if (newest) {
			char request[64];
			struct nfqnl_msg_verdict_hdr verdict = { htonl(NF_DROP), last };
			char *end = begin(request, NFQNL_MSG_VERDICT_BATCH, 0, number);
			end = attribute(end, NFQA_VERDICT_HDR, &verdict, sizeof verdict);
			((struct nlmsghdr *)request)->nlmsg_len = end - request;
			if (send(queue, request, end - request, 0) < 0)
				perror("verdict");
		}
	}
}

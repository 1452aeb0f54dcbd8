#define _GNU_SOURCE
#include "loadgen_link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef LOADGEN_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL_CTX *context;
static bool is_client;

static bool complain(const char *what) {
    char text[256] = "";
    ERR_error_string_n(ERR_get_error(), text, sizeof text);
    fprintf(stderr, "loadgen: TLS: %s: %s\n", what, text);
    ERR_clear_error();
    return false;
}

static bool make_context(const SSL_METHOD *method) {
    context = SSL_CTX_new(method);
    if (!context) return complain("context");
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1); /* a record's header and body in one recv */
    return true;
}

bool link_use_certificate(const char *certificate_file, const char *key_file) {
    if (!make_context(TLS_server_method())) return false;
    SSL_CTX_set_num_tickets(context, 0);
    if (SSL_CTX_use_certificate_chain_file(context, certificate_file) != 1) return complain(certificate_file);
    if (SSL_CTX_use_PrivateKey_file(context, key_file, SSL_FILETYPE_PEM) != 1) return complain(key_file);
    return true;
}

bool link_trust(const char *authority_file) {
    is_client = true;
    if (!make_context(TLS_client_method())) return false;
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (SSL_CTX_load_verify_locations(context, authority_file, NULL) != 1) return complain(authority_file);
    return true;
}

static bool open_tls(link_t *link) {
    if (!context) return true;
    SSL *tls = SSL_new(context);
    if (!tls || SSL_set_fd(tls, link->fd) != 1) {
        SSL_free(tls);
        return complain("connection");
    }
    if (is_client) {
        if (!X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), "127.0.0.1") || SSL_connect(tls) != 1) {
            complain("handshake");
            SSL_free(tls);
            return false;
        }
    } else {
        SSL_set_accept_state(tls);
    }
    link->tls = tls;
    return true;
}

/* -> 0 when OpenSSL only waits for the socket, -1 when the connection is over. */
static long why_not(SSL *tls, int result) {
    int error = SSL_get_error(tls, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
    ERR_clear_error();
    return -1;
}

static long receive_tls(link_t *link, void *to, size_t capacity) {
    int n = SSL_read(link->tls, to, (int)capacity);
    return n > 0 ? n : why_not(link->tls, n);
}

static long send_tls(link_t *link, const void *from, size_t n) {
    int taken = SSL_write(link->tls, from, (int)n);
    return taken > 0 ? taken : why_not(link->tls, taken);
}

static void close_tls(link_t *link) { SSL_free(link->tls); }

#else

static bool complain(void) {
    fprintf(stderr, "loadgen: built without TLS: OpenSSL's headers were not found\n");
    return false;
}
bool link_use_certificate(const char *certificate_file, const char *key_file) {
    (void)certificate_file, (void)key_file;
    return complain();
}
bool link_trust(const char *authority_file) {
    (void)authority_file;
    return complain();
}
static bool open_tls(link_t *link) { return !link->tls; }
static long receive_tls(link_t *link, void *to, size_t capacity) {
    (void)link, (void)to, (void)capacity;
    return -1;
}
static long send_tls(link_t *link, const void *from, size_t n) {
    (void)link, (void)from, (void)n;
    return -1;
}
static void close_tls(link_t *link) { (void)link; }

#endif

bool link_open(link_t *link, int fd) {
    *link = (link_t){.fd = fd, .tls = NULL};
    return open_tls(link);
}

void link_close(link_t *link) {
    if (link->tls) close_tls(link);
    close(link->fd);
    *link = (link_t){.fd = -1, .tls = NULL};
}

long link_receive(link_t *link, void *to, size_t capacity, int64_t *at_ns) {
    if (link->tls) return receive_tls(link, to, capacity);
    union {
        char bytes[CMSG_SPACE(sizeof(struct timespec))];
        struct cmsghdr align;
    } control;
    struct iovec part = {.iov_base = to, .iov_len = capacity};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(link->fd, &message, MSG_DONTWAIT);
    if (n < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (n == 0) return -1;
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
        struct timespec at;
        memcpy(&at, CMSG_DATA(c), sizeof at);
        *at_ns = (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
    }
    return n;
}

long link_send(link_t *link, const void *from, size_t n) {
    if (link->tls) return send_tls(link, from, n);
    ssize_t taken = send(link->fd, from, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (taken < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
    return taken;
}

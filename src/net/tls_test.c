/* Two sessions at the ends of a socket pair, stepped by hand. */
#include "base/mem.h"
#include "net/tls.h"

#include <errno.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static char cert_path[64], key_path[64], other_key_path[64];

static EVP_PKEY *write_key(const char *path, const char *password)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    const EVP_CIPHER *cipher = password ? EVP_aes_128_cbc() : NULL;
    assert_int_equal(PEM_write_PrivateKey(f, key, cipher, NULL, 0, NULL, (void *)(uintptr_t)password), 1);
    fclose(f);
    return key;
}

/* A certificate that signs itself, and is its own authority. */
static void write_certificate(const char *path, EVP_PKEY *key)
{
    X509 *x = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_version(x, 2);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, x), 1);
    fclose(f);
    X509_free(x);
}

static int make_files(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    snprintf(cert_path, sizeof cert_path, "/tmp/covey-tls-test-%d.crt", (int)getpid());
    snprintf(key_path, sizeof key_path, "/tmp/covey-tls-test-%d.key", (int)getpid());
    snprintf(other_key_path, sizeof other_key_path, "/tmp/covey-tls-test-%d.other", (int)getpid());
    EVP_PKEY *key = write_key(key_path, NULL);
    write_certificate(cert_path, key);
    EVP_PKEY_free(key);
    EVP_PKEY_free(write_key(other_key_path, "sesame"));
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    unlink(cert_path);
    unlink(key_path);
    unlink(other_key_path);
    return 0;
}

static struct tls_config good(void)
{
    return (struct tls_config){.cert_file = cert_path,
                               .key_file = key_path,
                               .ca_file = cert_path,
                               .session_caching = true,
                               .cache_size = 100,
                               .cache_timeout_s = 300,
                               .auth_clients = TLS_AUTH_YES};
}

static struct tls *configured(struct tls_config config)
{
    struct buf error = {0};
    struct tls_contexts *c = tls_contexts_create(&config, &error);
    if (!c) fail_msg("%.*s", (int)error.n, error.p);
    struct tls *t = tls_create();
    assert_false(tls_is_configured(t));
    tls_install(t, c);
    assert_true(tls_is_configured(t));
    return t;
}

static void forget(struct tls *t)
{
    tls_install(t, NULL);
    mem_free(t);
}

struct pair {
    int fd[2];
    struct tls *t;
    struct tls_session *server, *client;
};

static void pair_open(struct pair *p, struct tls_config config)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p->fd), 0);
    p->t = configured(config);
    p->server = tls_accept(p->t, p->fd[0], false);
    p->client = tls_connect(p->t, p->fd[1]);
    assert_non_null(p->server);
    assert_non_null(p->client);
}

static enum status shake(struct pair *p)
{
    enum status a = E_AGAIN, b = E_AGAIN;
    for (int i = 0; i < 20 && (a == E_AGAIN || b == E_AGAIN); i++) {
        if (a == E_AGAIN) a = tls_handshake(p->server);
        if (b == E_AGAIN) b = tls_handshake(p->client);
        if (a == E_IO || b == E_IO) return E_IO;
    }
    return a == OK && b == OK ? OK : E_AGAIN;
}

static void pair_close(struct pair *p)
{
    tls_close(p->server);
    tls_close(p->client);
    close(p->fd[0]);
    close(p->fd[1]);
    forget(p->t);
}

static void bytes_pass_in_both_directions(void **state)
{
    struct pair p;
    (void)state;
    pair_open(&p, good());
    assert_false(tls_established(p.server));
    assert_int_equal(tls_events(p.server, 0), 0);
    assert_int_equal(tls_handshake(p.server), E_AGAIN);
    assert_int_equal(tls_events(p.server, 0), NET_READ);
    assert_int_equal(shake(&p), OK);
    assert_true(tls_established(p.server) && tls_established(p.client));
    struct buf in = {0};
    size_t put, got;
    buf_reserve(&in, 100);
    assert_int_equal(tls_write(p.client, "hello", 5, &put), OK);
    assert_int_equal(put, 5);
    assert_int_equal(tls_read(p.server, &in, 100, &got), OK);
    assert_true(bytes_eq(buf_bytes(&in), BYTES("hello")));
    assert_false(tls_has_more(p.server));
    assert_int_equal(tls_read(p.server, &in, 50, &got), E_AGAIN);
    assert_int_equal(tls_write(p.server, "world", 5, &put), OK);
    in.n = 0;
    assert_int_equal(tls_read(p.client, &in, 100, &got), OK);
    assert_true(bytes_eq(buf_bytes(&in), BYTES("world")));
    buf_deinit(&in);
    pair_close(&p);
}

/* What a small buffer leaves behind is not in the socket any more: the session has to say so. */
static void a_small_buffer_leaves_more(void **state)
{
    struct pair p;
    size_t put, got, total = 0;
    char sent[10000];
    (void)state;
    pair_open(&p, good());
    assert_int_equal(shake(&p), OK);
    for (size_t i = 0; i < sizeof sent; i++) sent[i] = (char)(i * 7);
    assert_int_equal(tls_write(p.client, sent, sizeof sent, &put), OK);
    assert_int_equal(put, sizeof sent);
    struct buf in = {0};
    buf_reserve(&in, sizeof sent);
    for (int turn = 0; total < sizeof sent; turn++) {
        assert_int_equal(tls_read(p.server, &in, 3000, &got), OK);
        total += got;
        assert_true(tls_has_more(p.server) == (total < sizeof sent));
        assert_true(turn < 10);
    }
    assert_memory_equal(in.p, sent, sizeof sent);
    buf_deinit(&in);
    pair_close(&p);
}

/* A full socket: what was not taken is written again, from the same place. */
static void a_full_socket_stops_and_goes_on(void **state)
{
    enum { SIZE = 3 * 1024 * 1024 };
    struct pair p;
    size_t put, got, at = 0;
    (void)state;
    pair_open(&p, good());
    assert_int_equal(shake(&p), OK);
    char *sent = mem_alloc(SIZE);
    for (size_t i = 0; i < SIZE; i++) sent[i] = (char)(i * 31 + i / 1000);
    struct buf in = {0};
    int stops = 0;
    buf_reserve(&in, SIZE);
    while (in.n < SIZE) {
        while (at < SIZE) {
            enum status st = tls_write(p.client, sent + at, SIZE - at, &put);
            at += put;
            if (st == OK) continue;
            assert_int_equal(st, E_AGAIN);
            assert_true(tls_events(p.client, NET_WRITE) & NET_WRITE);
            stops++;
            break;
        }
        enum status st = tls_read(p.server, &in, 100 * 1000, &got);
        assert_true(st == OK || st == E_AGAIN);
    }
    assert_true(stops > 3);
    assert_memory_equal(in.p, sent, SIZE);
    buf_deinit(&in);
    mem_free(sent);
    pair_close(&p);
}

static void an_end_comes_after_the_bytes(void **state)
{
    struct pair p;
    size_t put, got;
    (void)state;
    pair_open(&p, good());
    assert_int_equal(shake(&p), OK);
    assert_int_equal(tls_write(p.client, "last", 4, &put), OK);
    tls_close(p.client);
    p.client = NULL;
    struct buf in = {0};
    buf_reserve(&in, 100);
    assert_int_equal(tls_read(p.server, &in, 100, &got), OK);
    assert_true(bytes_eq(buf_bytes(&in), BYTES("last")));
    assert_int_equal(tls_read(p.server, &in, 50, &got), E_CLOSED);
    buf_deinit(&in);
    pair_close(&p);
}

static void garbage_is_no_handshake(void **state)
{
    struct pair p;
    (void)state;
    pair_open(&p, good());
    assert_int_equal(write(p.fd[1], "GET / HTTP/1.1\r\n\r\n", 18), 18);
    assert_int_equal(tls_handshake(p.server), E_IO);
    assert_non_null(strstr(tls_error(p.server), "http request"));
    pair_close(&p);
}

static void a_client_without_certificate_is_refused(void **state)
{
    static const enum tls_auth auth[] = {TLS_AUTH_YES, TLS_AUTH_OPTIONAL, TLS_AUTH_NO};
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct pair p;
        struct tls_config config = good();
        config.auth_clients = auth[i];
        config.protocols = "TLSv1.2"; /* where the client hears of it in the handshake */
        pair_open(&p, config);
        SSL_CTX *bare = SSL_CTX_new(TLS_client_method());
        SSL *client = SSL_new(bare);
        SSL_set_fd(client, p.fd[1]);
        enum status st = E_AGAIN;
        for (int step = 0; step < 20 && st == E_AGAIN; step++) {
            SSL_connect(client);
            st = tls_handshake(p.server);
        }
        assert_int_equal(st, auth[i] == TLS_AUTH_YES ? E_IO : OK);
        SSL_free(client);
        SSL_CTX_free(bare);
        pair_close(&p);
    }
}

/* Sessions keep the contexts they were made with. */
static void sessions_outlive_their_contexts(void **state)
{
    struct pair p;
    struct buf error = {0};
    size_t put, got;
    (void)state;
    pair_open(&p, good());
    assert_int_equal(shake(&p), OK);
    struct tls_config config = good();
    tls_install(p.t, tls_contexts_create(&config, &error));
    tls_install(p.t, NULL);
    assert_null(tls_accept(p.t, p.fd[0], false));
    struct buf in = {0};
    buf_reserve(&in, 100);
    assert_int_equal(tls_write(p.client, "x", 1, &put), OK);
    assert_int_equal(tls_read(p.server, &in, 100, &got), OK);
    assert_int_equal(got, 1);
    buf_deinit(&in);
    pair_close(&p);
}

static void what_is_wrong_is_said(void **state)
{
    struct tls_config c[10];
    static const char *const said[] = {"No tls-cert-file",         "No tls-key-file",      "Either tls-ca-cert-file",
                                       "Failed to load cert",      "Failed to load priv",  "Invalid tls-protocols",
                                       "Failed to configure ciph", "Failed to load /none", "Failed to configure CA",
                                       "Failed to load priv"};
    (void)state;
    for (int i = 0; i < 10; i++) c[i] = good();
    c[0].cert_file = "";
    c[1].key_file = NULL;
    c[2].ca_file = NULL;
    c[3].cert_file = "/none";
    c[4].key_file = other_key_path;
    c[4].key_pass = "sesame"; /* opens, but belongs to no certificate of ours */
    c[5].protocols = "TLSv1.2 SSLv3";
    c[6].ciphers = "none";
    c[7].dh_params_file = "/none";
    c[8].ca_file = "/none";
    c[9].key_file = other_key_path;
    c[9].key_pass = "wrong";
    for (int i = 0; i < 10; i++) {
        struct buf error = {0};
        assert_null(tls_contexts_create(&c[i], &error));
        buf_append_char(&error, '\0');
        if (!strstr(error.p, said[i])) fail_msg("%d: %s", i, error.p);
        buf_deinit(&error);
    }
}

struct counted {
    struct loop_source src;
    struct loop *loop;
    int calls, again;
};

static void count_call(struct loop_source *src, int events)
{
    struct counted *c = (struct counted *)src;
    c->calls++;
    assert_true(events & NET_READ);
    if (c->again-- > 0) loop_again(c->loop, src);
}

/* loop_again() is a turn without sleep, once a turn, and only for who wants to read. */
static void the_loop_comes_again(void **state)
{
    int fd[2];
    (void)state;
    struct loop *l = loop_create();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    struct counted c = {.src = {.fd = fd[0], .ready = count_call}, .loop = l, .again = 2};
    assert_int_equal(loop_add(l, &c.src, NET_READ), OK);
    loop_again(l, &c.src);
    loop_again(l, &c.src);
    for (int i = 1; i <= 3; i++) {
        loop_turn(l, -1);
        assert_int_equal(c.calls, i);
    }
    loop_turn(l, 0);
    assert_int_equal(c.calls, 3);
    loop_again(l, &c.src); /* and the kernel says the same: one call */
    assert_int_equal(write(fd[1], "x", 1), 1);
    loop_turn(l, -1);
    assert_int_equal(c.calls, 4);
    loop_set(l, &c.src, 0);
    loop_again(l, &c.src);
    loop_turn(l, 0);
    assert_int_equal(c.calls, 4);
    loop_set(l, &c.src, NET_READ);
    loop_again(l, &c.src);
    loop_remove(l, &c.src);
    loop_turn(l, 0);
    assert_int_equal(c.calls, 4);
    close(fd[0]);
    close(fd[1]);
    loop_destroy(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_pass_in_both_directions),
        cmocka_unit_test(a_small_buffer_leaves_more),
        cmocka_unit_test(a_full_socket_stops_and_goes_on),
        cmocka_unit_test(an_end_comes_after_the_bytes),
        cmocka_unit_test(garbage_is_no_handshake),
        cmocka_unit_test(a_client_without_certificate_is_refused),
        cmocka_unit_test(sessions_outlive_their_contexts),
        cmocka_unit_test(what_is_wrong_is_said),
        cmocka_unit_test(the_loop_comes_again),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}

/* tls.c: the contexts: certificates, keys, ciphers.
 * Source of what is checked, and of the defaults: redis-server 7.0.15. */
#include "net/tls_internal.h"

#include "base/mem.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <strings.h>

#ifdef __SANITIZE_THREAD__
/* libcrypto, which is not instrumented, works out what a shared certificate says when it is first used, under a lock,
 * and tells others by an atomic flag.  ThreadSanitizer sees only the comparison that follows. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:^ASN1_STRING_cmp$\n";
}
#endif

enum { READ_BUFFER = 32 * 1024, ERROR_TEXT = 256 };

static bool is_set(const char *s)
{
    return s && *s;
}

static const char *openssl_reason(char out[ERROR_TEXT])
{
    unsigned long e = ERR_peek_error(); /* the first says most */
    if (e)
        ERR_error_string_n(e, out, ERROR_TEXT);
    else
        snprintf(out, ERROR_TEXT, "%s", strerror(errno));
    ERR_clear_error();
    return out;
}

/* ---- one context ---- */

static int give_password(char *out, int size, int writing, void *password)
{
    const char *text = password;
    size_t n = text ? strlen(text) : 0;
    (void)writing;
    if (n == 0 || n > (size_t)size) return -1;
    memcpy(out, text, n);
    return (int)n;
}

/* The versions that are not named; -1: one of the words is no version. */
static int64_t versions_off(const char *words)
{
    static const struct {
        const char *name;
        uint64_t off;
    } versions[] = {{"TLSv1", SSL_OP_NO_TLSv1},
                    {"TLSv1.1", SSL_OP_NO_TLSv1_1},
                    {"TLSv1.2", SSL_OP_NO_TLSv1_2},
                    {"TLSv1.3", SSL_OP_NO_TLSv1_3}};
    uint64_t off = SSL_OP_NO_TLSv1 | SSL_OP_NO_TLSv1_1 | SSL_OP_NO_TLSv1_2 | SSL_OP_NO_TLSv1_3;
    if (!is_set(words)) words = "TLSv1.2 TLSv1.3";
    for (const char *p = words + strspn(words, " "); *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, " "), i = 0;
        while (i < 4 && !(strlen(versions[i].name) == n && strncasecmp(p, versions[i].name, n) == 0)) i++;
        if (i == 4) return -1;
        off &= ~versions[i].off;
        p += n;
    }
    return (int64_t)off;
}

static bool load_identity(SSL_CTX *ctx, const char *cert, const char *key, const char *pass, struct buf *error)
{
    char reason[ERROR_TEXT];
    SSL_CTX_set_default_passwd_cb(ctx, give_password);
    SSL_CTX_set_default_passwd_cb_userdata(ctx, (void *)(uintptr_t)pass);
    bool ok = SSL_CTX_use_certificate_chain_file(ctx, cert) == 1;
    if (!ok) buf_printf(error, "Failed to load certificate: %s: %s", cert, openssl_reason(reason));
    if (ok && SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) {
        buf_printf(error, "Failed to load private key: %s: %s", key, openssl_reason(reason));
        ok = false;
    }
    SSL_CTX_set_default_passwd_cb_userdata(ctx, NULL); /* borrowed; not needed again */
    return ok;
}

static bool load_authorities(SSL_CTX *ctx, const struct tls_config *c, struct buf *error)
{
    char reason[ERROR_TEXT];
    const char *file = is_set(c->ca_file) ? c->ca_file : NULL, *dir = is_set(c->ca_dir) ? c->ca_dir : NULL;
    if ((!file && !dir) || SSL_CTX_load_verify_locations(ctx, file, dir) == 1) return true;
    buf_printf(error, "Failed to configure CA certificate(s) file/directory: %s", openssl_reason(reason));
    return false;
}

static bool choose_ciphers(SSL_CTX *ctx, const struct tls_config *c, struct buf *error)
{
    if (is_set(c->ciphers) && SSL_CTX_set_cipher_list(ctx, c->ciphers) != 1) {
        buf_printf(error, "Failed to configure ciphers: %s", c->ciphers);
        return false;
    }
    if (is_set(c->ciphersuites) && SSL_CTX_set_ciphersuites(ctx, c->ciphersuites) != 1) {
        buf_printf(error, "Failed to configure ciphersuites: %s", c->ciphersuites);
        return false;
    }
    return true;
}

static SSL_CTX *context(const struct tls_config *c, bool client, struct buf *error)
{
    int64_t off = versions_off(c->protocols);
    if (off < 0) {
        buf_append_cstr(error,
                        "Invalid tls-protocols specified. Use a combination of 'TLSv1', 'TLSv1.1', 'TLSv1.2' and "
                        "'TLSv1.3'.");
        return NULL;
    }
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    if (!ctx) {
        buf_append_cstr(error, "Failed to make a TLS context");
        return NULL;
    }
    /* Many clients end without close_notify.  Nothing is lost by not minding: everything that is read on these
     * connections has a length or a mark at its end. */
    SSL_CTX_set_options(ctx, (uint64_t)off | SSL_OP_NO_SSLv3 | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                 SSL_OP_SINGLE_DH_USE | SSL_OP_IGNORE_UNEXPECTED_EOF);
    /* Without the last one an idle connection would keep two buffers of a record's size. */
    SSL_CTX_set_mode(ctx,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, READ_BUFFER);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    bool ok = !is_set(client ? c->client_cert_file : c->cert_file) ||
              (client ? load_identity(ctx, c->client_cert_file, c->client_key_file, c->client_key_pass, error)
                      : load_identity(ctx, c->cert_file, c->key_file, c->key_pass, error));
    if (ok && load_authorities(ctx, c, error) && choose_ciphers(ctx, c, error)) return ctx;
    SSL_CTX_free(ctx);
    return NULL;
}

/* ---- what only the accepting side has ---- */

static bool load_dh_params(SSL_CTX *ctx, const char *path, struct buf *error)
{
    if (!is_set(path)) return SSL_CTX_set_dh_auto(ctx, 1) == 1;
    BIO *f = BIO_new_file(path, "r");
    if (!f) {
        buf_printf(error, "Failed to load %s: %s", path, strerror(errno));
        ERR_clear_error();
        return false;
    }
    EVP_PKEY *params = PEM_read_bio_Parameters(f, NULL);
    BIO_free(f);
    if (params && SSL_CTX_set0_tmp_dh_pkey(ctx, params) == 1) return true; /* it took the parameters */
    EVP_PKEY_free(params);
    ERR_clear_error();
    buf_printf(error, "Failed to load DH params file: %s", path);
    return false;
}

static void cache_sessions(SSL_CTX *ctx, const struct tls_config *c)
{
    static const unsigned char id[] = "covey";
    SSL_CTX_set_session_id_context(ctx, id, sizeof id - 1);
    if (!c->session_caching) {
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
        return;
    }
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_SERVER);
    SSL_CTX_sess_set_cache_size(ctx, (long)c->cache_size);
    SSL_CTX_set_timeout(ctx, (long)c->cache_timeout_s);
}

static bool check(const struct tls_config *c, struct buf *error)
{
    bool has_identity = is_set(c->cert_file) || is_set(c->key_file);
    if (c->only_connects && !has_identity && (is_set(c->ca_file) || is_set(c->ca_dir))) return true;
    if (!is_set(c->cert_file))
        buf_append_cstr(error, "No tls-cert-file configured!");
    else if (!is_set(c->key_file))
        buf_append_cstr(error, "No tls-key-file configured!");
    else if ((c->auth_clients != TLS_AUTH_NO || c->needs_ca) && !is_set(c->ca_file) && !is_set(c->ca_dir))
        buf_append_cstr(error, "Either tls-ca-cert-file or tls-ca-cert-dir must be specified when tls-cluster, "
                               "tls-replication or tls-auth-clients are enabled!");
    else
        return true;
    return false;
}

struct tls_contexts *tls_contexts_create(const struct tls_config *c, struct buf *error)
{
    if (!check(c, error)) return NULL;
    struct tls_contexts *x = mem_calloc(1, sizeof *x);
    x->auth_clients = c->auth_clients;
    x->server = context(c, false, error);
    if (x->server) {
        if (c->prefer_server_ciphers) SSL_CTX_set_options(x->server, SSL_OP_CIPHER_SERVER_PREFERENCE);
        cache_sessions(x->server, c);
    }
    bool ok = x->server && load_dh_params(x->server, c->dh_params_file, error);
    if (ok && is_set(c->client_cert_file) && is_set(c->client_key_file)) {
        x->client = context(c, true, error);
        ok = x->client != NULL;
    } else if (ok) {
        SSL_CTX_up_ref(x->server);
        x->client = x->server;
    }
    if (ok) return x;
    tls_contexts_destroy(x);
    return NULL;
}

void tls_contexts_destroy(struct tls_contexts *c)
{
    if (!c) return;
    SSL_CTX_free(c->server);
    SSL_CTX_free(c->client);
    mem_free(c);
}

/* ---- the contexts in force ---- */

/* OpenSSL's memory counts like ours, if it has not begun to allocate; a failed allocation is its to handle. */
static void *count_malloc(size_t n, const char *file, int line)
{
    (void)file, (void)line;
    return n ? mem_try_alloc(n) : NULL;
}

static void *count_realloc(void *p, size_t n, const char *file, int line)
{
    (void)file, (void)line;
    if (n) return mem_try_realloc(p, n);
    mem_free(p);
    return NULL;
}

static void count_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    mem_free(p);
}

struct tls *tls_create(void)
{
    (void)CRYPTO_set_mem_functions(count_malloc, count_realloc, count_free);
    struct tls *t = mem_calloc(1, sizeof *t);
    pthread_mutex_init(&t->mu, NULL);
    return t;
}

void tls_destroy(struct tls *t)
{
    tls_contexts_destroy(t->contexts);
    pthread_mutex_destroy(&t->mu);
    mem_free(t);
}

void tls_install(struct tls *t, struct tls_contexts *c)
{
    pthread_mutex_lock(&t->mu);
    struct tls_contexts *old = t->contexts;
    t->contexts = c;
    pthread_mutex_unlock(&t->mu);
    tls_contexts_destroy(old); /* sessions hold what they need of it */
}

bool tls_is_configured(struct tls *t)
{
    pthread_mutex_lock(&t->mu);
    bool is = t->contexts != NULL;
    pthread_mutex_unlock(&t->mu);
    return is;
}

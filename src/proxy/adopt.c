#include "proxy/adopt.h"

bool proxy_install_tls(struct front *f, const struct proxy_config *c)
{
    if (!proxy_config_has_tls(c)) return true;
    struct tls_contexts *made = proxy_config_tls(c);
    if (made) tls_install(f->tls, made);
    return made != NULL;
}

bool proxy_adopt(struct front *f, struct proxy *cluster, struct proxy_config *c, struct proxy_config *old)
{
    if (!proxy_install_tls(f, c)) return false;
    front_configure(f, c);
    if (cluster && !proxy_cluster_listen(cluster)) {
        front_configure(f, old);
        return false;
    }
    if (cluster) proxy_cluster_configure(cluster);
    front_policy_configure(f);
    return true;
}

// A page from a program of the host's (Examples/host), read, answered and given
// back: what a guest's side of grants comes to when there is nothing else.
//
//     postcard DOMID         of the host's program
#include "grants.h"
#include "store.h"

static void fail(const char *what) {
    perror(what);
    exit(1);
}

int main(int count, char **words) {
    static struct store store;
    char key[64];
    const char *own;
    unsigned reference, offered;
    uint64_t index;
    if (count != 2) {
        fputs("usage: postcard DOMID\n", stderr);
        return 64;
    }
    unsigned host = (unsigned)atoi(words[1]);
    if (store_open(&store)) fail("/dev/xen/xenbus");
    // The host's program says to whom it writes in the key, and two numbers in the value.
    if (!(own = store_read(&store, "domid"))) fail("domid");
    snprintf(key, sizeof key, "/local/domain/%u/data/postcard-%.5s", host, own);
    if (store_wait(&store, key, 30000) <= 0) fail(key);
    if (sscanf(store.reply, "%u %u", &reference, &offered) != 2) fail("the key is not understood");

    int grants = xen_open("gntdev"), bells = xen_open("evtchn");
    if (grants < 0 || bells < 0) fail("/dev/xen");
    int port = bell_connect(bells, host, offered);
    if (port < 0) fail("cannot connect the bell");
    uint32_t one = reference;
    if (map_grants(grants, host, &one, 1, &index)) fail("cannot map the page");
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, grants, (off_t)index);
    if (page == MAP_FAILED) fail("cannot map the page");
    // Whoever writes there may go on doing so: what is printed is a copy, and it ends.
    char text[200];
    memcpy(text, page, sizeof text);
    text[sizeof text - 1] = 0;
    printf("%s\n", text);
    snprintf(page + PAGE / 2, PAGE / 2, "greetings back, from process %d", (int)getpid());
    bell_ring(bells, (unsigned)port);
    return 0;
}

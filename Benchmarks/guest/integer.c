// The integer mix: what ordinary programs are made of when they do not
// calculate with fractions. Four parts, each handing its result to the next
// one, so that none can be skipped: linked lists (loads that wait for loads),
// a matrix (multiplications, regular addresses), a state machine that reads
// text (branches), and CRCs (shifts, and a table).
//
// The file needs no library and uses general registers alone: it is linked
// into the Linux program, and by itself as a bare-metal image for counting
// instructions. All state is made anew in each round.
#include "workload.h"

enum { nodes = 128, size = 12, text_length = 512 };

struct node {
    struct node *next;
    u32 key;
    u32 data;
};

static struct node pool[nodes];
static int left[size][size], right[size][size], product[size][size];
static u8 text[text_length];
static u32 crc_table[256];

static u32 random_next(u32 *seed) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

static struct node *merge(struct node *a, struct node *b) {
    struct node head, *tail = &head;
    while (a && b) {
        if (a->key <= b->key) {
            tail->next = a;
            a = a->next;
        } else {
            tail->next = b;
            b = b->next;
        }
        tail = tail->next;
    }
    tail->next = a ? a : b;
    return head.next;
}

static struct node *merge_sort(struct node *list) {
    if (!list || !list->next) return list;
    struct node *slow = list, *fast = list->next;
    while (fast && fast->next) {
        slow = slow->next;
        fast = fast->next->next;
    }
    struct node *second = slow->next;
    slow->next = 0;
    return merge(merge_sort(list), merge_sort(second));
}

static u32 lists(u32 seed) {
    for (int i = 0; i < nodes; i++) {
        pool[i].next = i + 1 < nodes ? &pool[i + 1] : 0;
        pool[i].key = random_next(&seed) & 0xffff;
        pool[i].data = i;
    }
    struct node *list = merge_sort(pool), *reversed = 0;
    u32 found = 0;
    for (u32 wanted = 0; wanted < 16; wanted++) {
        struct node *n = list;
        while (n && (n->data & 15) != wanted) n = n->next;
        if (n) found = found * 31 + n->key;
    }
    while (list) {
        struct node *next = list->next;
        list->next = reversed;
        reversed = list;
        list = next;
    }
    for (; reversed; reversed = reversed->next) found = found * 5 + reversed->data;
    return found;
}

static u32 matrix(u32 seed) {
    for (int i = 0; i < size; i++)
        for (int j = 0; j < size; j++) {
            left[i][j] = (int)(random_next(&seed) >> 20) - 2048;
            right[i][j] = (int)(random_next(&seed) >> 20) - 2048;
        }
    u32 sum = 0;
    for (int i = 0; i < size; i++)
        for (int j = 0; j < size; j++) {
            int dot = 0;
            for (int k = 0; k < size; k++) dot += left[i][k] * right[k][j];
            product[i][j] = dot;
            sum += (u32)dot ^ sum << 1;
        }
    return sum;
}

// Words as "-12,0x3f,1.5e-3,name7": which kind is each?
enum state { start, sign, number, fraction, exponent_start, exponent, zero, hex, name, invalid, states };

static enum state step(enum state at, u8 c) {
    int digit = c >= '0' && c <= '9';
    switch (at) {
    case start: return c == '-' || c == '+' ? sign : c == '0' ? zero : digit ? number : c >= 'a' && c <= 'z' ? name : invalid;
    case sign: return c == '0' ? zero : digit ? number : invalid;
    case zero: if (c == 'x') return hex; /* fall through */
    case number: return digit ? number : c == '.' ? fraction : c == 'e' ? exponent_start : invalid;
    case fraction: return digit ? fraction : c == 'e' ? exponent_start : invalid;
    case exponent_start: return digit || c == '-' ? exponent : invalid;
    case exponent: return digit ? exponent : invalid;
    case hex: return digit || (c >= 'a' && c <= 'f') ? hex : invalid;
    case name: return digit || (c >= 'a' && c <= 'z') ? name : invalid;
    default: return invalid;
    }
}

static u32 state_machine(u32 seed) {
    static const char words[8][8] = {"-12", "0x3fc", "1.5e-3", "name7", "42", "+0.25", "9z", "1e99"};
    int length = 0;
    while (length + 8 < text_length) {
        const char *word = words[random_next(&seed) >> 29];
        while (*word) text[length++] = (u8)*word++;
        text[length++] = ',';
    }
    u32 ended_in[states] = {0}, visits = 0;
    enum state at = start;
    for (int i = 0; i < length; i++) {
        if (text[i] == ',') {
            ended_in[at]++;
            at = start;
        } else {
            enum state next = step(at, text[i]);
            visits += next != at;
            at = next;
        }
    }
    u32 result = visits;
    for (int i = 0; i < states; i++) result = result * 33 + ended_in[i];
    return result;
}

static u16 crc16(u16 crc, u8 byte) {
    for (int bit = 0; bit < 8; bit++) {
        u16 carry = (crc ^ byte) & 1;
        crc >>= 1;
        byte >>= 1;
        if (carry) crc ^= 0xa001;
    }
    return crc;
}

static u32 crcs(u32 value) {
    if (!crc_table[1])
        for (u32 i = 0; i < 256; i++) {
            u32 entry = i;
            for (int bit = 0; bit < 8; bit++) entry = entry & 1 ? entry >> 1 ^ 0xedb88320u : entry >> 1;
            crc_table[i] = entry;
        }
    u32 crc = ~value;
    for (int i = 0; i < text_length; i++) crc = crc >> 8 ^ crc_table[(crc ^ text[i]) & 0xff];
    u16 small = 0;
    for (int i = 0; i < 64; i++) small = crc16(small, text[i] ^ (u8)(crc >> (i & 31)));
    return ~crc ^ small;
}

u64 integer_mix(u64 rounds) {
    u32 value = 0x2545f491;
    u64 sum = 0;
    while (rounds--) {
        value = lists(value | 1);
        value ^= matrix(value | 1);
        value += state_machine(value | 1);
        value ^= crcs(value);
        sum += value;
    }
    return sum;
}

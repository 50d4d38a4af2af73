/*
 * A Launcher in C: what lguest's own did, as far as a Guest without devices
 * needs it. It maps memory, puts a Guest's file and a page table there, and
 * then reads until the Guest is dead, printing what it notifies.
 *
 *     launcher MEGABYTES GUEST.elf [COMMAND LINE]
 *
 * Exit status: 0 if the Guest powered off, 70 if it died, 1 for trouble here.
 */
#include <elf.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include LGUEST_H

enum { INITIALIZE = 0, PAGE = 4096 };

/* The Guest's memory: RAM, and one page above it for descriptors of devices, of which there are none. */
static unsigned char *memory;
static uint64_t ram;

static void *at(uint64_t address, uint64_t count) {
    if (count > ram || address > ram - count) errx(1, "0x%llx is not in the Guest", (unsigned long long)address);
    return memory + address;
}

static void put32(uint64_t address, uint32_t value) { memcpy(at(address, 4), &value, 4); }
static void put64(uint64_t address, uint64_t value) { memcpy(at(address, 8), &value, 8); }

/* Every segment to its physical address. Returns where the first instruction is. */
static uint64_t load(const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) err(1, "cannot open %s", path);
    struct stat status;
    if (fstat(file, &status) != 0) err(1, "cannot size %s", path);
    uint64_t size = (uint64_t)status.st_size;
    if (size < sizeof(Elf64_Ehdr)) errx(1, "%s is no ELF file", path);
    unsigned char *image = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (image == MAP_FAILED) err(1, "cannot map %s", path);
    close(file);

    Elf64_Ehdr header;
    memcpy(&header, image, sizeof header);
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
        header.e_machine != EM_X86_64 || header.e_phentsize != sizeof(Elf64_Phdr))
        errx(1, "%s is no x86-64 ELF file", path);
    if (header.e_phoff > size || header.e_phnum * sizeof(Elf64_Phdr) > size - header.e_phoff)
        errx(1, "%s is cut short", path);
    for (int i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;
        memcpy(&segment, image + header.e_phoff + i * sizeof segment, sizeof segment);
        if (segment.p_type != PT_LOAD) continue;
        if (segment.p_offset > size || segment.p_filesz > size - segment.p_offset ||
            segment.p_filesz > segment.p_memsz)
            errx(1, "%s is cut short", path);
        memcpy(at(segment.p_paddr, segment.p_memsz), image + segment.p_offset, segment.p_filesz);
    }
    munmap(image, size);
    return header.e_entry;
}

/* At the end of RAM: all of memory mapped to itself, by pages of 2 MiB. Returns the table's address. */
static uint64_t page_tables(void) {
    uint64_t gibibytes = (ram + PAGE + (1ULL << 30) - 1) >> 30;
    uint64_t start = ram - (2 + gibibytes) * PAGE;
    put64(start, (start + PAGE) | 3);
    for (uint64_t i = 0; i < gibibytes; i++) put64(start + PAGE + 8 * i, (start + (2 + i) * PAGE) | 3);
    for (uint64_t i = 0; i << 21 < ram + PAGE; i++) put64(start + 2 * PAGE + 8 * i, i << 21 | 0x83);
    return start;
}

/* What is left of Linux's boot_params, at 0, and the command line behind it. */
static void boot_page(const char *command_line) {
    memory[0x1e8] = 1;          /* one range of memory */
    put64(0x2d0 + 8, ram);
    put32(0x2d0 + 16, 1);       /* … which is RAM */
    memory[0x206] = 7, memory[0x207] = 2;
    memory[0x210] = 0xff;
    put32(0x228, PAGE);
    put32(0x23c, 1);            /* lguest */
    snprintf(at(PAGE, 2048), 2048, "%s", command_line);
}

/* A text that the Guest has notified: its early console. */
static void print(uint64_t address) {
    for (; address < ram && memory[address]; address++) putchar(memory[address]);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc < 3) errx(1, "usage: %s MEGABYTES GUEST.elf [COMMAND LINE]", argv[0]);
    ram = strtoull(argv[1], NULL, 10) << 20;
    if (ram < 1 << 20 || ram > 1ULL << 36) errx(1, "'%s' is no amount of memory", argv[1]);
    memory = mmap(NULL, ram + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) err(1, "no %s MiB", argv[1]);
    uint64_t start = load(argv[2]);
    boot_page(argc > 3 ? argv[3] : "");

    int guest = lguest_open();
    if (guest < 0) err(1, "lguest_open");
    uint64_t request[] = {INITIALIZE, (uint64_t)(uintptr_t)memory, ram / PAGE + 1, page_tables(), start};
    if (lguest_write(guest, request, sizeof request, 0) < 0) err(1, "INITIALIZE");

    for (;;) {
        uint64_t notified;
        ptrdiff_t count = lguest_read(guest, &notified, sizeof notified, 0);
        if (count == sizeof notified) print(notified);
        else if (count < 0 && errno != EINTR && errno != EAGAIN) break;
    }
    if (errno == ERESTART) errx(70, "the Guest wants to be started again");
    if (errno != ENOENT) err(1, "lguest_read");

    char reason[1024];
    if (lguest_read(guest, reason, sizeof reason, 0) < 0) err(1, "no reason");
    reason[sizeof reason - 1] = 0;
    if (lguest_close(guest) != 0) err(1, "lguest_close");
    if (strcmp(reason, "CRASH: Power down") == 0) return 0;
    fprintf(stderr, "lguest: %s\n", reason);
    return 70;
}

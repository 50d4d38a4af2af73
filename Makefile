#P:030 One door
#
# Every thing that a person does with this repository is a target here. The
# first target is what `make` alone does: it tells of the others.

# A toolchain in PATH, or where the tarball is usually put.
SWIFT := $(or $(shell command -v swift 2>/dev/null),$(wildcard /opt/swift/usr/bin/swift),$(wildcard $(HOME)/.swiftly/bin/swift))
FLAGS ?=
CHAPTERS := Preparation Guest Drivers Launcher Host Switcher Mastery

# Debian's packages that the build needs; FILE:PACKAGE, and PACKAGE is missing
# if FILE is. Looking at files is quick, and right on systems without dpkg too.
INCLUDE := /usr/include
DEPENDENCIES := \
	$(INCLUDE)/Zydis/Zydis.h:libzydis-dev \
	$(INCLUDE)/lz4.h:liblz4-dev \
	$(INCLUDE)/zstd.h:libzstd-dev \
	$(INCLUDE)/lzma.h:liblzma-dev \
	$(INCLUDE)/zlib.h:zlib1g-dev \
	$(INCLUDE)/slirp/libslirp.h:libslirp-dev
MISSING = $(foreach d,$(DEPENDENCIES),$(if $(wildcard $(firstword $(subst :, ,$d))),,$(lastword $(subst :, ,$d))))

# What `make debian` needs besides: each target's own list reaches the targets that it depends on.
debian test-debian: DEPENDENCIES += \
	/usr/bin/mmdebstrap:mmdebstrap \
	/usr/bin/fakeroot:fakeroot \
	/usr/bin/fakechroot:fakechroot \
	/usr/bin/newuidmap:uidmap \
	/sbin/mke2fs:e2fsprogs \
	/usr/bin/ssh-keygen:openssh-client

# What the programs of Examples/sharing are built with.
examples demo-grants: DEPENDENCIES += \
	/usr/bin/cc:gcc \
	$(INCLUDE)/xen/gntalloc.h:linux-libc-dev \
	$(INCLUDE)/libxenvchan.h:libxen-dev

.PHONY: help deps swift build library run debian examples demo-grants test test-thorough test-debian test-threads guests guest bench fuzz-cpu fuzz-guest \
	fuzz-boot fuzz-qcow2 fuzz-house fuzz-virtio fuzz-lguest fuzz-grants check contents format clean $(CHAPTERS) Beer

help: ## this list
	@echo 'Roost boots stock x86-64 Linux on a software CPU. Two commands to start with:'
	@echo '  make run             a shell in a guest, whatever that takes'
	@echo '  make test            all tests, real boots included'
	@echo 'And all of them:'
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-22s %s\n", $$1, $$2 }'
	@echo 'The code is also a book; "make Beer" prints all of it, and these a chapter each:'
	@echo '  make $(CHAPTERS)'

deps: swift ## installs what the build needs and is missing (Debian; sudo unless root)
	@missing='$(strip $(MISSING))'; \
	[ -z "$$missing" ] && exit 0; \
	if ! command -v apt-get >/dev/null; then \
		echo "make: no apt-get here. Install the development files of Zydis 4, lz4, zstd, xz, zlib and libslirp" >&2; \
		echo "make: (Debian's names of what is missing: $$missing), then try again." >&2; exit 1; \
	fi; \
	if [ "$$(id -u)" = 0 ]; then sudo=; \
	elif command -v sudo >/dev/null; then sudo=sudo; \
	else \
		echo "make: missing: $$missing, and there is neither root nor sudo to install it with." >&2; \
		echo "make: as root: apt-get install $$missing" >&2; exit 1; \
	fi; \
	echo "installing $$missing" >&2; \
	{ $$sudo apt-get update -q && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; } >&2 || \
	{ echo "make: could not install: $$missing" >&2; exit 1; }

swift:
	@[ -n '$(SWIFT)' ] || { \
		echo "make: no Swift found. Roost is built with Swift 6.3: https://www.swift.org/install/linux/" >&2; \
		echo "make: have 'swift' in PATH, or put the toolchain at /opt/swift." >&2; exit 1; }

build: deps ## builds the command, optimized: .build/release/roost
	@$(SWIFT) build -c release --product roost $(FLAGS)

# The header is what the compiler writes of the library's functions.
library: deps ## lguest's Host for programs in any language: .build/release/liblguest.so and lguest.h
	@$(SWIFT) build -c release --product lguest $(FLAGS)
	@cp -f .build/release/LguestLibrary.build/include/LguestLibrary-Swift.h .build/release/lguest.h

run: build ## boots Debian's cloud kernel to a shell (ARGS='--verbose -- uname -a')
	@.build/release/roost run $(ARGS)

debian: build ## a disk with a whole Debian, debian.ext4 (DISK=FILE, SIZE=2G, PACKAGES='fio dbench')
	@tools/make-debian $(if $(SIZE),--size '$(SIZE)') $(if $(PACKAGES),--packages '$(PACKAGES)') $(if $(KERNEL),--kernel '$(KERNEL)') '$(or $(DISK),debian.ext4)'

examples: deps ## programs that share pages, for Linux guests: .build/examples/ring, vchan and postcard
	@mkdir -p .build/examples
	@$(MAKE) --no-print-directory -C Examples/sharing OUT='$(CURDIR)/.build/examples'

demo-grants: build examples ## two Debian guests exchange 1 GB through granted pages (BYTES=4G)
	@tools/demo-grants

test: deps guests ## builds and runs all tests
	$(SWIFT) build -c release --build-tests $(FLAGS)
	$(SWIFT) test -c release --skip-build $(FLAGS)

test-thorough: deps guests ## the same with ten times the random cases, longer fuzzing, a guest under stress, and test-threads
	$(SWIFT) build -c release --build-tests $(FLAGS)
	ROOST_CASES=3000000 ROOST_FUZZ_SECONDS=120 ROOST_STRESS_SECONDS=20 $(SWIFT) test -c release --skip-build $(FLAGS)
	$(MAKE) test-threads

test-debian: debian ## a whole Debian: login, ssh, reboot, poweroff (DISK=FILE as for debian)
	$(SWIFT) build -c release --build-tests $(FLAGS)
	ROOST_DEBIAN='$(or $(DISK),debian.ext4)' $(SWIFT) test -c release --skip-build $(FLAGS) --filter DebianTests

test-threads: deps ## virtio devices and their drivers, networks, lguest's Host and grants under the thread sanitizer
	ROOST_TESTS=Virtio,Network,Lguest,Grants $(SWIFT) build -c release --sanitize thread --build-tests --scratch-path .build-tsan $(FLAGS)
	ROOST_TESTS=Virtio,Network,Lguest,Grants TSAN_OPTIONS='suppressions=$(CURDIR)/Tests/CSanitizer/suppressions $(TSAN_OPTIONS)' \
	$(SWIFT) test -c release --sanitize thread --skip-build --scratch-path .build-tsan $(FLAGS) \
		--filter 'VirtioTests|NetworkTests|LguestTests.(Bind|Send|SharedKey|Ring|Bus|CloseOfPeers|DMAModel|Noise)|GrantsTests.(Store|Domain|Event|GrantMap|HostDomain)'

# The samples, in their own words: Guest/Sources/Samples. For a machine without a
# system, so with a triple of their own; the linker leaves the symbols in.
SAMPLES := $(notdir $(wildcard Guest/Sources/Samples/*))
GUEST_BUILD := build --package-path Guest -c release --triple x86_64-unknown-none-elf --toolset Guest/toolset.json

guests: swift ## builds the sample Guests in Swift: .build/guests/hello.elf and others
	@$(SWIFT) $(GUEST_BUILD) $(FLAGS)
	@mkdir -p .build/guests
	@for sample in $(SAMPLES) exercise; do \
		cp -f "Guest/.build/x86_64-unknown-none-elf/release/$$sample" ".build/guests/$$sample.elf" || exit 1; done

guest: swift ## begins a Guest of your own (NAME=mine, DIR=FOLDER); Guest/README.md tells how it goes on
	@tools/new-guest '$(NAME)' $(if $(DIR),'$(DIR)')

bench: build ## measures, and writes the figures to SPECIFICATION.md
	@if [ -x Benchmarks/run ]; then Benchmarks/run; else echo 'make: nothing to measure yet (Benchmarks/run)' >&2; exit 1; fi

fuzz-cpu: deps ## instructions against this machine's own CPU (CASES=20000000, ONLY='shld,pcmp*', SEED=1)
	ROOST_CASES=$(or $(CASES),20000000) $(if $(ONLY),ROOST_ONLY='$(ONLY)') $(if $(SEED),ROOST_SEED=$(SEED)) \
	$(SWIFT) test -c release --filter AgreesWithTheHost $(FLAGS)

fuzz-guest: deps ## Guests made of noise, in every mode of the CPU (SECONDS=600)
	ROOST_FUZZ_SECONDS=$(or $(SECONDS),600) $(SWIFT) test -c release --filter HostileGuest $(FLAGS)

# SwiftPM links libFuzzer, which comes with the toolchain; FuzzBoot is in the manifest only when ROOST_FUZZ is set.
# Of two sanitizers, each by an option of its own, the compiler takes the last: hence the third option.
FUZZ := ROOST_FUZZ=1 $(SWIFT) build -c release --sanitize fuzzer --sanitize address \
	-Xswiftc -sanitize=fuzzer,address --scratch-path .build-fuzz --product
fuzz-boot: deps ## each loader under libFuzzer (SECONDS=60 for each)
	$(FUZZ) FuzzBoot
	@for loader in bzimage payload elf pvh multiboot any; do \
		mkdir -p fuzz-out/$$loader; seeds=Fuzz/Boot/seeds/$$loader; [ -d $$seeds ] || seeds=; \
		LOADER=$$loader .build-fuzz/release/FuzzBoot -max_total_time=$(or $(SECONDS),60) -use_value_profile=1 \
			-max_len=4096 -artifact_prefix=fuzz-out/ fuzz-out/$$loader $$seeds || exit 1; \
	done

fuzz-qcow2: deps ## disk images under libFuzzer (SECONDS=60)
	$(FUZZ) FuzzQcow2
	@mkdir -p fuzz-out/qcow2
	.build-fuzz/release/FuzzQcow2 -max_total_time=$(or $(SECONDS),60) -use_value_profile=1 \
		-max_len=32768 -artifact_prefix=fuzz-out/ fuzz-out/qcow2 Fuzz/Qcow2/seeds

fuzz-house: deps ## house files under libFuzzer (SECONDS=60)
	$(FUZZ) FuzzHouse
	@mkdir -p fuzz-out/house
	.build-fuzz/release/FuzzHouse -max_total_time=$(or $(SECONDS),60) -use_value_profile=1 \
		-max_len=4096 -artifact_prefix=fuzz-out/ fuzz-out/house Fuzz/House/seeds

# No leak detection: it does not see the pointers behind Swift's weak references.
fuzz-virtio: deps ## the driver's side of each virtio device under libFuzzer (SECONDS=60 for each, DEVICES='queue rng')
	$(FUZZ) FuzzVirtio
	@for device in $(or $(DEVICES),queue echo rng block qcow2-block console-out console-in net-out net-in user-net); do \
		mkdir -p fuzz-out/$$device; \
		ASAN_OPTIONS=detect_leaks=0 DEVICE=$$device .build-fuzz/release/FuzzVirtio -max_total_time=$(or $(SECONDS),60) -max_len=1024 \
			-artifact_prefix=fuzz-out/ fuzz-out/$$device || exit 1; \
	done

fuzz-lguest: deps ## Guests on lguest's bus under libFuzzer (SECONDS=60 for each, MODES='bus calls')
	$(FUZZ) FuzzLguest
	@for mode in $(or $(MODES),bus calls); do \
		mkdir -p fuzz-out/lguest-$$mode; \
		ASAN_OPTIONS=detect_leaks=0 MODE=$$mode .build-fuzz/release/FuzzLguest -max_total_time=$(or $(SECONDS),60) -max_len=2048 \
			-artifact_prefix=fuzz-out/ fuzz-out/lguest-$$mode || exit 1; \
	done

fuzz-grants: deps ## a Guest that sees Xen, and its neighbour, under libFuzzer (SECONDS=60)
	$(FUZZ) FuzzGrants
	@mkdir -p fuzz-out/grants
	ASAN_OPTIONS=detect_leaks=0 .build-fuzz/release/FuzzGrants -max_total_time=$(or $(SECONDS),60) -max_len=2048 \
		-artifact_prefix=fuzz-out/ fuzz-out/grants

check: deps ## builds all of it with warnings as errors, and reads the journey for broken passages
	$(SWIFT) build -c release --build-tests -Xswiftc -warnings-as-errors
	$(SWIFT) $(GUEST_BUILD) -Xswiftc -warnings-as-errors
	tools/extract --check

contents: ## refreshes the table of contents in JOURNEY.md
	@sed '/^| [A-Z]:[0-9][0-9][0-9] /d' JOURNEY.md > JOURNEY.md.new && tools/extract --contents >> JOURNEY.md.new && mv JOURNEY.md.new JOURNEY.md

format: ## formats the Swift sources
	$(SWIFT) format --in-place --recursive Sources Tests Examples Benchmarks Guest/Sources Guest/Package.swift Package.swift

clean: ## removes what was built
	rm -rf .build .build-fuzz .build-tsan Guest/.build

$(CHAPTERS):
	@tools/extract $@

Beer:
	@for chapter in $(CHAPTERS); do tools/extract $$chapter 2>/dev/null || true; done
#:

# For the Makefile of a Guest of one's own: NAME is its product's name, ROOST
# where this repository is. What it makes is NAME.elf, beside the Makefile.

SWIFT ?= $(or $(shell command -v swift 2>/dev/null),$(wildcard /opt/swift/usr/bin/swift),swift)
GUEST_BUILD := build -c release --triple x86_64-unknown-none-elf --toolset $(ROOST)/Guest/toolset.json

.PHONY: all run clean

all:
	@$(SWIFT) $(GUEST_BUILD) --product $(NAME)
	@cp -f "$$($(SWIFT) $(GUEST_BUILD) --show-bin-path)/$(NAME)" $(NAME).elf

run: all
	@$(MAKE) --no-print-directory -C $(ROOST) build
	@$(ROOST)/.build/release/roost run $(NAME).elf $(ARGS)

clean:
	rm -rf .build $(NAME).elf

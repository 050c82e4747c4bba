# Builds the crate and copies its library to OUTPUT. Run by cmake -P with CARGO, CRATE, TARGET_DIR, OUTPUT.
#
# The target folder may be shared between clones, whose libraries have the same name in it: the lock keeps another clone's build
# from putting its own there before the copy is made.
file(MAKE_DIRECTORY ${TARGET_DIR})
file(LOCK ${TARGET_DIR}/bearing.lock GUARD PROCESS)
execute_process(COMMAND ${CARGO} build --release --locked --lib --manifest-path ${CRATE}/Cargo.toml --target-dir ${TARGET_DIR}
                RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "cargo could not build the crate: folder=${CRATE} result=${result}")
endif()
file(COPY_FILE ${TARGET_DIR}/release/libbearing_bridge.a ${OUTPUT} ONLY_IF_DIFFERENT)
file(TOUCH_NOCREATE ${OUTPUT})

# frozen_string_literal: true

require_relative "helper"

class TestConfiguration < Minitest::Test
  def test_a_tenant_is_handed_on_by_name_and_by_prefix
    Companion::Inherited.add(["shard", "my-*"])
    job = {"shard" => 1, "my-a" => 2, "my" => 3, "locale" => "de", "cattr_x" => 4, "jid" => "5", "xlocale" => 6}
    assert_equal %w[shard my-a locale cattr_x], Companion::Inherited.from(job).keys
  ensure
    Companion::Inherited.add([])
  end

  def test_the_memory_is_the_gems
    with_memory(nil, Sidekiq::Workflow::Memory::RedisHashMemory.new) do
      assert_equal Companion::Memory.new("swf:mem", 86_400), Companion::Memory.current
      assert_equal "swf:mem:#{RUN_ID}", Companion::Memory.key_for("workflow_run_id" => RUN_ID)
      assert_equal "", Companion::Memory.key_for({})
    end
  end

  def test_the_memory_may_be_said_or_left_out
    mine = Companion::Memory.new("mine", 86_400)
    with_memory({key_prefix: "mine"}, nil) { assert_equal mine, Companion::Memory.current }
    with_memory(false, Sidekiq::Workflow::Memory::RedisHashMemory.new) { assert_nil Companion::Memory.current }
    with_memory(nil, nil) { assert_equal "", Companion::Memory.key_for("workflow_run_id" => RUN_ID) }
  end

  def test_a_memory_that_cannot_be_read_is_refused_with_what_to_do
    with_memory(nil, Object.new) do
      error = assert_raises(ArgumentError) { Companion::Memory.current }
      assert_includes error.message, "memory: {key_prefix: ..., ttl: ...}"
    end
  end

  def test_errors_of_the_server_pass_and_those_of_a_command_do_not
    passing = ["OOM command not allowed", "READONLY You can't write", "NOAUTH Authentication required.",
      "ERR Error running script (call to f_1): @x: OOM nope", "ERR max number of clients reached"]
    passing.each { |text| assert Companion::Trouble.passes?(RedisClient::CommandError.new(text)), text }
    ["WRONGTYPE Operation against a key", "ERR unknown command", "ERR the key OOM is odd"].each do |text|
      refute Companion::Trouble.passes?(RedisClient::CommandError.new(text)), text
    end
    assert Companion::Trouble.passes?(RedisClient::CannotConnectError.new("refused"))
    refute Companion::Trouble.passes?(RuntimeError.new("OOM"))
  end

  private

  def with_memory(option, of_gem)
    before = Sidekiq::Workflow.configuration.memory
    Sidekiq::Workflow.configuration.memory = of_gem
    Companion::Memory.option = option
    forget
    yield
  ensure
    Sidekiq::Workflow.configuration.memory = before
    Companion::Memory.option = nil
    forget
  end

  # The memory is resolved once for each process.
  def forget
    Companion::Memory.remove_instance_variable(:@current) if Companion::Memory.instance_variable_defined?(:@current)
  end
end

# frozen_string_literal: true

require_relative "helper"

class TestRequirements < Minitest::Test
  Requirements = Companion::Requirements

  def check
    output = StringIO.new
    Requirements.check(Logger.new(output))
    output.string
  end

  # Replaces a constant while the block runs.
  def with_constant(owner, name, value)
    before = owner.send(:remove_const, name)
    owner.const_set(name, value)
    yield
  ensure
    owner.send(:remove_const, name)
    owner.const_set(name, before)
  end

  def test_this_sidekiq_is_known
    assert_empty check
  end

  def test_an_unknown_sidekiq_is_logged_once_with_the_tested_versions
    with_constant(Sidekiq, :VERSION, "9.0.1") do
      line = check
      assert_equal 1, line.lines.size
      assert_includes line, "WARN"
      assert_includes line, "not with Sidekiq 9.0.1"
      assert_includes line, Requirements::TESTED
      assert_includes line, SidekiqFlow::VERSION
    end
  end

  def test_a_prerelease_counts_as_its_release
    with_constant(Sidekiq, :VERSION, "7.3.0.rc1") { assert_empty check }
    with_constant(Sidekiq, :VERSION, "8.2.0.beta1") { assert_includes check, "8.2.0.beta1" }
  end

  def test_an_unknown_gem_is_logged
    Sidekiq::Workflow.const_set(:VERSION, "0.2.0")
    assert_includes check, "sidekiq-workflow 0.2.0"
  ensure
    Sidekiq::Workflow.send(:remove_const, :VERSION)
  end

  def test_a_missing_method_is_refused_with_what_to_do
    [[Sidekiq::JobRetry, :local], [Sidekiq::JobRetry, :process_retry], [Sidekiq::Scheduled::Poller, :initial_wait],
      [Sidekiq::Manager, :stop], [Sidekiq::Workflow::Middleware, :call]].each do |owner, method|
      without(owner, method) do
        error = assert_raises(Companion::Unsupported) { check }
        assert_includes error.message, "#{owner}##{method}"
        assert_includes error.message, Requirements::TESTED
        assert_includes error.message, "Update sidekiq-flow"
      end
      assert_empty check
    end
  end

  def test_a_gem_that_is_not_loaded_is_refused
    workflow = Sidekiq.send(:remove_const, :Workflow)
    error = assert_raises(Companion::Unsupported) { check }
    assert_includes error.message, 'require "sidekiq/workflow"'
  ensure
    Sidekiq.const_set(:Workflow, workflow)
  end

  def test_the_banner_says_which_versions_run
    assert_includes Requirements.banner, "sidekiq-flow #{SidekiqFlow::VERSION}"
    assert_includes Requirements.banner, "Sidekiq #{Sidekiq::VERSION}"
  end

  private

  def without(owner, method)
    is_private = owner.private_method_defined?(method)
    owner.send(:alias_method, :kept_for_the_test, method)
    owner.send(:remove_method, method)
    yield
  ensure
    owner.send(:alias_method, method, :kept_for_the_test)
    owner.send(:remove_method, :kept_for_the_test)
    owner.send(:private, method) if is_private
  end
end

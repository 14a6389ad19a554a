# frozen_string_literal: true

# The stand-in once more, under the name that the gem has had since it was
# renamed, and with that one's keys. Loaded before the companion.

lib = File.expand_path("sidekiq", $LOAD_PATH.find { |path| File.exist?(File.join(path, "sidekiq/workflow.rb")) })
files = %w[nodes serialize barrier callback_storage memory runtime workflow middleware noop_worker schema typed_job templates]
[*files.map { |name| "workflow/#{name}.rb" }, "workflow.rb"].each do |name|
  source = File.read(File.join(lib, name)).lines.reject { |line| line.include?('require "sidekiq/workflow') }.join
  source = source.gsub("module Workflow", "module Sideline").gsub("Sidekiq::Workflow", "Sidekiq::Sideline")
  source = source.gsub("workflow_run_id", "sideline_run_id").gsub("workflow_completion_callbacks", "sideline_completion_callbacks")
  Object.class_eval(source.gsub("sidekiq_workflow_runtime", "sidekiq_sideline_runtime").gsub("swf:mem", "sl:mem"), name)
end
Sidekiq::Sideline.configure { |config| config.memory = Sidekiq::Sideline::Memory::RedisHashMemory.new }

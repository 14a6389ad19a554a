# frozen_string_literal: true

# The tab "Workflows" of Sidekiq's Web UI: the runs of workflows, their steps, and
# buttons to pause, resume and cancel a run and to retry its dead steps. Where Sidekiq::Web is mounted:
#
#   require "sidekiq/web"
#   require "sidekiq_flow/web"
#
# Workers do not need it, and it does not need the rest of the companion. For Sidekiq
# 7.3 and 8.

require "cgi"
require "digest/sha1"
require "json"
require "uri"
require "sidekiq/web"

require_relative "version" unless defined?(SidekiqFlow::VERSION)

# The single-file companion may have them, too.
unless defined?(SidekiqFlow::Companion::Scripts)
  module SidekiqFlow::Companion; end
  require_relative "lua_files"
  require_relative "scripts"
end

module SidekiqFlow::Web
  # Locales and views.
  ROOT = File.expand_path("../../web", __dir__)
end

require_relative "web/run_record"
require_relative "web/run_list"
require_relative "web/run_tree"
require_relative "web/run_jobs"
require_relative "web/step_states"
require_relative "web/run_page"
require_relative "web/actions"
require_relative "web/text"
require_relative "web/pages"

SidekiqFlow::Web::Pages.register
